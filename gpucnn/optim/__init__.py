"""Optimizers, learning-rate schedules, averages of the weights, and the loss scale of mixed precision."""

from gpucnn.optim.muon import Muon, muon_update, newton_schulz
from gpucnn.optim.optimizer import (
    SGD,
    Adam,
    AdamW,
    GroupRule,
    Optimizer,
    adam_update,
    clip_by_norm,
    momentum_update,
    sgd_update,
)

OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "muon": Muon, "adam": Adam, "adamw": AdamW}

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "AdamW",
    "GroupRule",
    "Muon",
    "Optimizer",
    "adam_update",
    "clip_by_norm",
    "momentum_update",
    "muon_update",
    "newton_schulz",
    "sgd_update",
]
