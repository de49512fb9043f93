"""``gpucnn find-lr``: the learning-rate range test of a recipe, with a plot."""

import argparse
from pathlib import Path

from gpucnn.cli.columns import counted, sentence
from gpucnn.cli.options import backend_from, check_number, check_picture, writing
from gpucnn.cli.train import add_recipe_arguments, load_data, settings_and_source
from gpucnn.plots.learning_curves import save_range_test
from gpucnn.runs.build import build_trainer
from gpucnn.runs.config import stated_settings
from gpucnn.runs.fine_tuning import resolve_start
from gpucnn.terminal import say
from gpucnn.training.lr_finder import MIN_STEPS, find_lr

UNREAD = {name for name, *_ in stated_settings() if name.startswith("schedule.")}
UNREAD |= {"train.ema", "train.patience", "train.tta", "run.log_interval", "run.tensorboard"}
"""Settings that change nothing here: the rates are those of the range, and the run ends with it."""
NO_FLAGS = {"optimizer.lr", "train.epochs", "train.max_steps"}
"""Those that matter only to decoupled weight decay and to the slow weights of lookahead."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``gpucnn find-lr``: those of a recipe, and the range."""
    add_recipe_arguments(parser, {name for name, *_ in stated_settings()} - UNREAD - NO_FLAGS)
    parser.add_argument("--from", dest="low", type=float, default=1e-5, metavar="RATE", help="first rate (1e-5)")
    parser.add_argument("--to", dest="high", type=float, default=10.0, metavar="RATE", help="last rate (10)")
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="steps between them (200)")
    parser.add_argument("--out", type=Path, default=Path("find_lr.png"), metavar="FILE", help="PNG, SVG or PDF")


def run(args: argparse.Namespace) -> int:
    """Raise the rate until the loss explodes, and print where it fell fastest."""
    check_picture(args.out)  # before the work starts
    for flag, value, least, most in (
        ("--from", args.low, 1e-30, 1e30),
        ("--to", args.high, 1e-30, 1e30),
        ("--steps", args.steps, MIN_STEPS, 10_000),
    ):
        check_number(flag, value, least, most)
    config, source = settings_and_source(args, unread=UNREAD)
    backend, _ = backend_from(config.run)
    train, _ = load_data(args, config)
    config = resolve_start(config, train, source)
    trainer = build_trainer(config, train, backend)
    if source:
        trainer.start_from(source.state)
    found = find_lr(trainer, train, low=args.low, high=args.high, steps=args.steps)
    title = f"{config.model.name} on {train.name}, {config.optimizer.name}, batch {config.train.batch_size}"
    with writing(args.out):
        save_range_test(args.out, found, title)
    steps = f"{counted(len(found.rates), 'step')}, rates {found.rates[0]:g} to {found.rates[-1]:.3g}"
    advice = f"--lr {found.lowest / 10:.2g}, a tenth of that; the peak of a schedule with warm-up may be higher"
    say(*sentence("", f"{title}: {steps}", 0))
    say(*sentence("loss", f"falls fastest at lr {found.steepest:.2g}, is lowest at {found.lowest:.2g}", 7))
    say(*sentence("try", advice, 7), f"saved  {args.out}")
    return 0
