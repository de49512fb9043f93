"""``gpucnn parity``: a backend beside the reference, layer by layer; 1 where a layer is over its tolerance.

How it is measured is described in gpucnn/checks/parity/.
"""

import argparse
import json
from collections.abc import Iterable
from functools import partial
from itertools import groupby

from gpucnn import models
from gpucnn.bench.race import WORKLOADS
from gpucnn.checks.parity import Parity, compare
from gpucnn.checks.parity.layerwise import Difference
from gpucnn.checks.parity.whole import Deviation
from gpucnn.cli.options import shape_from
from gpucnn.devices import get_backend
from gpucnn.devices.select import set_threads
from gpucnn.errors import UsageError
from gpucnn.runs.environment import environment
from gpucnn.types import Shape

SMALL = 2_000_000  # parameters: larger models only when they are asked for
SHAPES: dict[str, Shape] = dict(WORKLOADS.values())
USUAL_SHAPE = (32, 32, 3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``gpucnn parity``."""
    parser.add_argument("--device", default="cpu", metavar="NAME", help="what to look at: cpu (default), gpu, gpu:N")
    parser.add_argument("--model", metavar="NAME", help="one model (default: all of at most 2 million parameters)")
    parser.add_argument("--input-shape", metavar="HxWxC", help="of an image (default: as gpucnn benchmark has it)")
    parser.add_argument(
        "--batch-size", "-b", type=int, default=8, help="a small one: sums over many images of noise cancel"
    )
    parser.add_argument("--steps", type=int, default=5, metavar="K", help="training steps to compare; 0 for none")
    parser.add_argument("--seed", type=int, default=0, help="of weights, images and labels")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: all usable cores)")
    parser.add_argument("--json", action="store_true", help="one JSON object with every array")


def run(args: argparse.Namespace) -> int:
    """Compare model after model."""
    if args.batch_size < 1 or args.steps < 0:
        raise UsageError(f"--batch-size {args.batch_size} --steps {args.steps}: give at least 1 and 0")
    backend = get_backend(args.device)
    set_threads(args.threads)
    found = []
    for name, shape in cases(args.model, args.input_shape):
        build = partial(models.build, name, shape)
        settings = {"batch_size": args.batch_size, "seed": args.seed, "steps": args.steps}
        found.append(compare(build, shape, backend, name=name, **settings))
        if not args.json:
            print(as_text(found[-1]), flush=True)
    passed = all(parity.passed for parity in found)
    if args.json:
        machine = environment(args.device, backend.name, "")
        print(json.dumps({"machine": machine, "passed": passed, "models": [parity.as_json() for parity in found]}))
    else:
        print(verdict(found))
    return 0 if passed else 1


def cases(model: str | None, input_shape: str | None) -> list[tuple[str, Shape]]:
    """(model, shape of its images), checked: a wrong name or shape must not wait for its turn."""
    found = []
    for name in [model] if model else models.MODELS:
        shape = shape_from(input_shape) if input_shape else SHAPES.get(name, USUAL_SHAPE)
        parameters = models.build(name, shape).parameters().values()
        if model or sum(parameter.size for parameter in parameters) <= SMALL:
            found.append((name, shape))
    return found


# -- human-readable --------------------------------------------------------------------------------


def as_text(parity: Parity) -> str:
    """One model on 80 columns and a few."""
    shape = "x".join(map(str, parity.input_shape))
    names = parity.candidate, "reference"
    head = f"{parity.model}, {parity.batch_size} images of {shape}, seed {parity.seed}: {names[0]} against {names[1]}"
    lines = [head, "", *layer_table(parity.layers), "", *whole_table(parity)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def layer_table(rows: list[Difference]) -> list[str]:
    """The largest error of each layer, forward and backward."""
    groups = [(title, list(group)) for title, group in groupby(rows, lambda row: (row.layer, row.kind))]
    wide, kinds = (max(len(title[part]) for title, _ in groups) for part in (0, 1))
    wide = max(wide, len("each layer alone"))
    lines = [
        f"{'':<{wide}}  {'':<{kinds}}  {'forward':>17}  {'backward':>17}",
        f"{'each layer alone':<{wide}}  {'':<{kinds}}  {'ulp':>7}  {'relative':>8}  {'ulp':>7}  {'relative':>8}  worst",
    ]
    for (name, kind), group in groups:
        cells = "  ".join(largest(row for row in group if row.direction == way) for way in ("forward", "backward"))
        over = ", ".join(f"{row.array} over {row.tolerance:g}" for row in group if not row.passed)
        worst = max(group, key=lambda row: row.used)
        note = f"WRONG: {over}" if over else worst.array if worst.relative else ""
        lines.append(f"{name or '(model)':<{wide}}  {kind:<{kinds}}  {cells}  {note}")
    return lines


def largest(rows: Iterable[Difference]) -> str:
    """ulp and relative error of the worst of these rows; blanks where there are none."""
    worst = max(rows, key=lambda row: row.used, default=None)
    return f"{worst.ulps:7.1f}  {short(worst.relative):>8}" if worst else " " * 17


def short(value: float) -> str:
    """Two digits, and a plain 0 for what is equal."""
    return f"{value:.1e}" if value else "0"


def whole_table(parity: Parity) -> list[str]:
    """Where errors add up: the largest distances of each kind of array."""
    mine = parity.candidate
    columns = f"{mine} to reference", f"{mine} to float64", "reference to float64"
    lines = [f"{'whole net, relative':<22}" + "".join(f"{column:>22}" for column in columns) + "  worst"]
    for part, rows in groupby(parity.whole, lambda row: row.part):
        lines.append(whole_line(f"{part}s" if part != "loss" else part, list(rows)))
    if parity.training:
        steps = len(parity.training.candidate)
        lines += [whole_line(f"{row.part}, {steps} steps", [row]) for row in parity.training.deviations]
    return lines


def whole_line(title: str, rows: list[Deviation]) -> str:
    """The largest of each distance, and which array has the first one."""
    columns = [(row.candidate_to_reference, row.candidate_to_float64, row.reference_to_float64) for row in rows]
    cells = "".join(f"{short(max(column)):>22}" for column in zip(*columns, strict=True))
    worst = max(rows, key=lambda row: row.candidate_to_reference)
    return f"{title:<22}{cells}" + (f"  {worst.name}" if len(rows) > 1 and worst.candidate_to_reference else "")


def verdict(found: list[Parity]) -> str:
    """What it comes to, in a line."""
    rows = [(parity.model, row) for parity in found for row in parity.layers]
    total = len({(model, row.layer, row.kind) for model, row in rows})
    wrong = dict.fromkeys(f"{model} {row.layer} ({row.kind})" for model, row in rows if not row.passed)
    if wrong:
        return f"{len(wrong)} of {total} over their tolerance: {', '.join(wrong)}"
    return f"{total} layers, losses and optimisers alone, all within their tolerance"
