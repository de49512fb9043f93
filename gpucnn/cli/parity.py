"""``gpucnn parity``: a backend beside the reference, layer by layer; 1 where a layer is over its tolerance.

How it is measured is described in gpucnn/checks/parity/.
"""

import argparse
from functools import partial
from itertools import groupby

from gpucnn import models
from gpucnn.bench.race import WORKLOADS
from gpucnn.checks.parity import Parity, compare
from gpucnn.checks.parity.layerwise import Difference
from gpucnn.checks.parity.whole import Deviation
from gpucnn.cli.columns import columns, counted, sentence
from gpucnn.cli.options import check_number, shape_from
from gpucnn.devices import get_backend
from gpucnn.devices.select import set_threads
from gpucnn.models.memory import check_memory
from gpucnn.runs.environment import environment
from gpucnn.terminal import say, say_json
from gpucnn.types import Shape

SMALL = 2_000_000  # parameters: larger models only when they are asked for
SHAPES: dict[str, Shape] = dict(WORKLOADS.values())
USUAL_SHAPE = (32, 32, 3)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    batch = "a small one: sums over many images of noise cancel"
    parser.add_argument("--device", default="cpu", metavar="NAME", help="what to look at: cpu (default), gpu, gpu:N")
    parser.add_argument("--model", metavar="NAME", help="one model (default: all of at most 2 million parameters)")
    parser.add_argument("--input-shape", metavar="HxWxC", help="of an image (default: as gpucnn benchmark has it)")
    parser.add_argument("--batch-size", "-b", type=int, default=8, help=batch)
    parser.add_argument("--steps", type=int, default=5, metavar="K", help="training steps to compare; 0 for none")
    parser.add_argument("--seed", type=int, default=0, help="of weights, images and labels")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: all usable cores)")
    parser.add_argument("--json", action="store_true", help="one JSON object with every array")


def run(args: argparse.Namespace) -> int:
    """Compare model after model."""
    check_number("--batch-size", args.batch_size, 1, 10**6)
    check_number("--steps", args.steps, 0, 10**6)
    check_number("--seed", args.seed, 0, 2**63 - 1)
    backend = get_backend(args.device)
    set_threads(args.threads)
    settings = {"batch_size": args.batch_size, "seed": args.seed, "steps": args.steps}
    found = []
    for name, shape in cases(args.model, args.input_shape):
        check_memory(models.build(name, shape), shape, args.batch_size)
        found.append(compare(partial(models.build, name, shape), shape, backend, name=name, **settings))
        if not args.json:
            say(*as_lines(found[-1]))
    passed = all(parity.passed for parity in found)
    if args.json:
        machine = environment(args.device, backend.name)
        say_json({"machine": machine, "passed": passed, "models": [parity.as_json() for parity in found]})
    else:
        say(*sentence("", verdict(found), 0))
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


def as_lines(parity: Parity) -> list[str]:
    """One model."""
    shape = "x".join(map(str, parity.input_shape))
    images = f"{counted(parity.batch_size, 'image')} of {shape}, seed {parity.seed}"
    head = f"{parity.model}, {images}: {parity.candidate} against reference"
    return [*sentence("", head, 0), "", *layer_table(parity.layers), "", *whole_table(parity), ""]


def layer_table(rows: list[Difference]) -> list[str]:
    """The largest error of each layer, forward and backward."""
    table = [["", "", "", "forward", "", "backward", ""]]
    table += [["each layer alone", "", "ulp", "relative", "ulp", "relative", "worst"]]
    for (name, kind), found in groupby(rows, lambda row: (row.layer, row.kind)):
        group = sorted(found, key=lambda row: -row.used)  # the worst one first
        over = ", ".join(f"{row.array} over {row.tolerance:g}" for row in group if not row.passed)
        note = f"WRONG: {over}" if over else group[0].array if group[0].relative else ""
        table.append([name or "(model)", kind, *worst(group, "forward"), *worst(group, "backward"), note])
    return columns(table, "<<>>>><")


def worst(group: list[Difference], way: str) -> tuple[str, str]:
    """ulp and relative error of the first of these rows that goes this way; blanks where there is none."""
    return next(((f"{row.ulps:.1f}", short(row.relative)) for row in group if row.direction == way), ("", ""))


def short(value: float) -> str:
    """Two digits, and a plain 0 for what is equal."""
    return f"{value:.1e}" if value else "0"


def whole_table(parity: Parity) -> list[str]:
    """Where errors add up: the largest distances of each kind of array."""
    mine = parity.candidate
    table = [["whole net, relative", f"{mine} to reference", f"{mine} to float64", "reference to float64", "worst"]]
    for part, rows in groupby(parity.whole, lambda row: row.part):
        table.append(whole_row(f"{part}s" if part != "loss" else part, list(rows)))
    if parity.training:
        steps = len(parity.training.candidate)
        table += [whole_row(f"{row.part}, {counted(steps, 'step')}", [row]) for row in parity.training.deviations]
    return columns(table, "<>>><")


def whole_row(title: str, rows: list[Deviation]) -> list[str]:
    """The largest of each distance, and which array has the first one."""
    distances = [(row.candidate_to_reference, row.candidate_to_float64, row.reference_to_float64) for row in rows]
    first = max(rows, key=lambda row: row.candidate_to_reference)
    name = first.name if len(rows) > 1 and first.candidate_to_reference else ""
    return [title, *(short(max(column)) for column in zip(*distances, strict=True)), name]


def verdict(found: list[Parity]) -> str:
    """What it comes to, in a line."""
    rows = [(parity.model, row) for parity in found for row in parity.layers]
    total = len({(model, row.layer, row.kind) for model, row in rows})
    wrong = dict.fromkeys(f"{model} {row.layer} ({row.kind})" for model, row in rows if not row.passed)
    if wrong:
        return f"{len(wrong)} of {total} over their tolerance: {', '.join(wrong)}"
    return f"{total} layers, losses and optimizers alone, all within their tolerance"
