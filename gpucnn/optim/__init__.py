"""Optimisers, learning-rate schedules, averages of the weights, and the loss scale of mixed precision."""

from gpucnn.optim.muon import Muon as Muon
from gpucnn.optim.muon import muon_update as muon_update
from gpucnn.optim.muon import newton_schulz as newton_schulz
from gpucnn.optim.optimizer import SGD as SGD
from gpucnn.optim.optimizer import Adam as Adam
from gpucnn.optim.optimizer import AdamW as AdamW
from gpucnn.optim.optimizer import GroupRule as GroupRule
from gpucnn.optim.optimizer import Optimizer as Optimizer
from gpucnn.optim.optimizer import adam_update as adam_update
from gpucnn.optim.optimizer import clip_by_norm as clip_by_norm
from gpucnn.optim.optimizer import momentum_update as momentum_update
from gpucnn.optim.optimizer import sgd_update as sgd_update

OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "muon": Muon, "adam": Adam, "adamw": AdamW}
