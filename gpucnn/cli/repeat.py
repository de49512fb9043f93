"""One recipe with several seeds: mean and standard deviation of its accuracy."""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from gpucnn.checkpoint.durable import replace_file
from gpucnn.cli.columns import columns, sentence
from gpucnn.errors import UsageError
from gpucnn.files import read_text
from gpucnn.runs.directory import FILES, REMEDY, RESULT, RUNS, held, new_path
from gpucnn.runs.log import LONGEST, check_history, read_rows
from gpucnn.terminal import quoted, say

SUMMARY = "repeat.json"


def repeat(args: argparse.Namespace, seed: int, name: str, once: Callable[[argparse.Namespace], int]) -> int:
    """Train ``args.repeat`` times, with seeds seed, seed + 1, ..., each in a folder of its own below one.

    With ``--resume auto --output DIR`` runs that are complete stay, the one that was stopped goes on, and the others
    follow.  The summary is printed and saved as repeat.json.

    Returns:
        0, or the exit code of the run that was stopped.
    """
    if args.resume not in (None, "auto") or (args.resume and not args.output):
        raise UsageError("--repeat goes on where it was stopped with --resume auto and the same --output DIR")
    root = args.output or new_path(RUNS, f"{name}-x{args.repeat}")
    seeds = range(seed, seed + args.repeat)
    refuse_loss(root, seeds, going_on=bool(args.resume))
    rows: list[dict[str, Any]] = []
    for number in seeds:
        one = copy(args)
        one.output = root / f"seed-{number}"
        one.seed = number
        say(*[""] * bool(rows), f"seed {number}, run {number - seed + 1} of {args.repeat}")
        if code := once(one):
            others = f"       and with the other seeds by the same command with --resume auto --output {quoted(root)}"
            with suppress(OSError):  # the reader of the output may be gone
                say(others)
            return code
        rows.append({"seed": number, **outcome(one.output)})
    say("", *table(rows))
    replace_file(root / SUMMARY, [json.dumps({"runs": rows, **summary(rows)}, indent=2).encode() + b"\n"])
    say(f"saved  {root / SUMMARY}")
    return 0


def refuse_loss(root: Path, seeds: Sequence[int], *, going_on: bool) -> None:
    """Raises UsageError, before anything is trained, where a run or the summary would replace what is there."""
    places = [root, *(root / f"seed-{number}" for number in seeds)]
    found = [path for place in places if (path := held(place, (SUMMARY,) if place == root else FILES))]
    if found and not going_on:
        raise UsageError(f"{found[0]} is there: {REMEDY}")
    if os.path.lexists(root / SUMMARY):
        try:
            known = {int(row["seed"]) for row in json.loads((root / SUMMARY).read_text(encoding="utf-8"))["runs"]}
        except (OSError, ValueError, LookupError, TypeError):
            raise UsageError(f"{root / SUMMARY} is no summary of runs: choose another --output") from None
        if lost := sorted(known.difference(seeds)):
            raise UsageError(f"{root / SUMMARY} has seed {lost[0]} as well: include it, or choose another --output")


def outcome(folder: Path) -> dict[str, Any]:
    """A run's accuracy and losses at its last epoch, never its best one, and the minutes of all epochs.

    ``tta_accuracy`` as well where it used views after that epoch.

    Raises:
        UsageError: the run's log is gone, or is not one that a run has written.
    """
    log, result = folder / "metrics.jsonl", folder / RESULT
    rows = read_rows(log)
    if not rows:
        raise UsageError(f"{log} has no epoch: put the run's log back, or remove {folder} to train that seed again")
    try:
        found: dict[str, Any] = {
            "minutes": sum(row.get("seconds") or 0.0 for row in rows) / 60.0
        }  # some rows have none
        found |= {key: rows[-1][key] for key in ("epoch", "train_loss", "test_loss", "test_accuracy")}
        views = json.loads(read_text(result, LONGEST)) if result.exists() else {}
        found |= {"tta_accuracy": views["test_accuracy"]} if views.get("epoch") == found["epoch"] else {}
        check_history({key: [found[key]] for key in ("epoch", "test_accuracy")}, UsageError, str(log))
        return found
    except (AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise UsageError(
            f"the log in {folder} is none of a run: {error!r}; remove it to train that seed again"
        ) from None


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample, n - 1) of the accuracies at the last epoch."""
    made: dict[str, Any] = {"n": len(rows), **spread([row["test_accuracy"] for row in rows])}
    if all("tta_accuracy" in row for row in rows):
        made["tta"] = spread([row["tta_accuracy"] for row in rows])
    return made


def spread(found: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation."""
    return {"mean": mean(found), "std": stdev(found) if len(found) > 1 else 0.0}


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line per seed, then the mean."""
    cells = [["seed", "epochs", "test loss", "test accuracy", "minutes"]]
    for row in rows:
        loss = "none" if row["test_loss"] is None else f"{row['test_loss']:.4f}"  # it was NaN
        accuracy, minutes = f"{100 * row['test_accuracy']:.2f} %", f"{row['minutes']:.1f}"
        cells.append([str(row["seed"]), str(row["epoch"]), loss, accuracy, minutes])
    all_of, minutes = summary(rows), f"{mean(row['minutes'] for row in rows):.1f} minutes each"
    lines = [*columns(cells, ">"), *sentence("mean", f"{percent(all_of)}, n = {all_of['n']}, {minutes}", 5)]
    if "tta" in all_of:
        lines += sentence("", f"with test-time augmentation {percent(all_of['tta'])}", 5)
    return lines


def percent(found: dict[str, float]) -> str:
    return f"{100 * found['mean']:.2f} %, standard deviation {100 * found['std']:.2f} %"
