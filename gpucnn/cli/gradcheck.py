"""``gpucnn gradcheck``: the table of finite differences."""

import argparse
from dataclasses import asdict

from gpucnn.checks.gradcheck import LAYERS, LOSSES, TOLERANCE, Check, check_all, check_layer
from gpucnn.cli.columns import columns, counted, sentence
from gpucnn.errors import ShapeError, UsageError
from gpucnn.models import ORIGINS, from_spec
from gpucnn.models.spec import LAYERS as NAMED
from gpucnn.terminal import say, say_json
from gpucnn.types import Shape


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layer", default="", metavar="NAME", help="only cases whose name contains this")
    parser.add_argument("--json", action="store_true", help="one JSON object per array")


def run(args: argparse.Namespace) -> int:
    """Print the table; 1 where a gradient is wrong."""
    checks = check_all(args.layer) + check_plugins(args.layer)
    if not checks:
        known = ", ".join([*LAYERS, *LOSSES])
        raise UsageError(f"--layer {args.layer!r}: no case has this in its name; there are {known}")
    wrong = sum(not check.passed for check in checks)
    if args.json:
        for check in checks:
            say_json({**asdict(check), "passed": check.passed})
    else:
        rows = [(check.case, check.array, f"{check.error:.1e}", "" if check.passed else "WRONG") for check in checks]
        say(*columns([("layer or loss", "gradient of", "error", ""), *rows], "<<><"))
        said = f"{counted(len(checks), 'gradient')} against finite differences in float64, {wrong} above {TOLERANCE:g}"
        say(*sentence("", said, 0))
    return 1 if wrong else 0


def check_plugins(names: str) -> list[Check]:
    """The layers of plugins whose names contain this, on images of two channels, or on vectors where they want those.

    A layer's arguments are those of its attribute ``example``, a table as of a list of layers.
    """
    checks: list[Check] = []
    for name in sorted(ORIGINS.keys() & NAMED.keys()):
        if names.lower() in name.lower():
            table = {"layer": name, "name": "", **getattr(NAMED[name], "example", {})}
            try:
                shape: Shape = (2, 4, 5, 2)
                layer = from_spec([table], shape[1:])
            except ShapeError:
                shape = (3, 6)
                layer = from_spec([table], shape[1:])
            checks += check_layer(layer, shape, case=name)
    return checks
