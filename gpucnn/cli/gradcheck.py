"""``gpucnn gradcheck``: the table of finite differences."""

import argparse
from dataclasses import asdict

from gpucnn.checks.gradcheck import LAYERS, LOSSES, TOLERANCE, check_all
from gpucnn.cli.columns import columns, counted, sentence
from gpucnn.errors import UsageError
from gpucnn.terminal import say, say_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--layer", default="", metavar="NAME", help="only cases whose name contains this")
    parser.add_argument("--json", action="store_true", help="one JSON object per array")


def run(args: argparse.Namespace) -> int:
    """Print the table; 1 where a gradient is wrong."""
    checks = check_all(args.layer)
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
