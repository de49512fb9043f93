"""``gpucnn recipes``: the recipes and pretrained models that come with the package."""

import argparse

from gpucnn.checkpoint import open_checkpoint
from gpucnn.cli.columns import columns, paragraph
from gpucnn.files import read_text
from gpucnn.runs import catalogue
from gpucnn.runs.config import LONGEST, Config
from gpucnn.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this recipe, a TOML file (default: list all)")


def run(args: argparse.Namespace) -> int:
    """Print a recipe, or both lists."""
    if args.name is not None:
        say(*read_text(catalogue.recipe(args.name), LONGEST).splitlines())
        return 0
    say(*recipes(), "", *pretrained())
    return 0


def recipes() -> list[str]:
    """A line for each measured result of a recipe."""
    rows = [["RECIPE", "DATA SET", "NET", "TEST", "n", "TIME", "MACHINE"]]
    for name in catalogue.names(catalogue.RECIPES):
        config = Config.from_file(catalogue.recipe(name))
        head = [name, config.data.dataset, config.model.name]
        for result in catalogue.results(name):
            rows.append([*head, result.accuracy, result.n, result.time, result.machine])
            head = ["", "", ""]
        if head[0]:
            rows.append([*head, "-", "-", "-", "-"])
    about = "TEST is the accuracy at the last epoch over the recipe's views, a mean of n runs. *: with other work on "
    about += "the machine. -: not run to its end. Machines and settings: gpucnn recipes NAME."
    return [*columns(rows, "<<<>>><"), "", *paragraph("", about, 0), "Train with one: gpucnn train --recipe NAME"]


def pretrained() -> list[str]:
    """A line for each pretrained model."""
    rows = [["PRETRAINED", "DATA SET", "NET", "TEST", "SIZE"]]
    for name, accuracy in catalogue.accuracies().items():
        file = open_checkpoint(catalogue.pretrained(name))
        config = Config.from_toml(file.config)
        rows.append([name, config.data.dataset, config.model.name, accuracy, f"{file.size / 1e6:.1f} MB"])
    return [*columns(rows, "<<<>"), "", "Use one: gpucnn predict --checkpoint NAME digit.png"]
