"""``gpucnn gradcheck``: the table of finite differences."""

import argparse
import json
from dataclasses import asdict

from gpucnn.checks.gradcheck import LAYERS, LOSSES, TOLERANCE, check_all
from gpucnn.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``gpucnn gradcheck``."""
    parser.add_argument("--layer", default="", metavar="NAME", help="only cases whose name contains this")
    parser.add_argument("--json", action="store_true", help="one JSON object per array")


def run(args: argparse.Namespace) -> int:
    """Print the table; 1 where a gradient is wrong."""
    checks = check_all(args.layer)
    if not checks:
        known = ", ".join([*LAYERS, *LOSSES])
        raise UsageError(f"--layer {args.layer!r}: no case has this in its name; there are {known}")
    if args.json:
        for check in checks:
            print(json.dumps({**asdict(check), "passed": check.passed}))
        return 0 if all(check.passed for check in checks) else 1
    table = [("layer or loss", "gradient of"), *((check.case, check.array) for check in checks)]
    widths = [max(len(row[column]) for row in table) for column in (0, 1)]
    print(f"{table[0][0]:<{widths[0]}}  {table[0][1]:<{widths[1]}}     error")
    for check in checks:
        verdict = "" if check.passed else "   WRONG"
        print(f"{check.case:<{widths[0]}}  {check.array:<{widths[1]}}  {check.error:8.1e}{verdict}")
    wrong = sum(not check.passed for check in checks)
    print(f"{len(checks)} gradients against finite differences in float64, {wrong} above {TOLERANCE:g}")
    return 1 if wrong else 0
