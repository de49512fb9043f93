"""``gpucnn evaluate``: loss, accuracy and a report per class of a checkpoint.

Batch size, normalisation and model come from the config in the file, so that loss and accuracy equal those that
training logged, to the last digit.
"""

import argparse
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from gpucnn.cli.columns import columns, counted, sentence
from gpucnn.cli.features import make_room
from gpucnn.cli.options import add_data_options, add_model_options, backend_from, load_fitted, writing
from gpucnn.data import Dataset, Loader
from gpucnn.errors import NotANumberError, UsageError
from gpucnn.inference.evaluate import evaluate
from gpucnn.inference.predict import probabilities
from gpucnn.layers import Layer
from gpucnn.losses import softmax_cross_entropy
from gpucnn.plots.report import PICTURES, save_report
from gpucnn.runs.build import check_data, split
from gpucnn.runs.config import Config
from gpucnn.runs.state import load_trained
from gpucnn.terminal import harmless, say, say_json, tell
from gpucnn.types import Array

WIDE = 12  # classes of the largest confusion matrix that is printed
NAME = 24  # characters of a class name
MOST_IN_MATRIX = 1024  # classes of the largest confusion matrix that there is
MOST_LISTED, WORST = 256, 24  # classes of the longest table that is printed whole, and lines of a longer one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = "which images (default: those that training tested on: validation where held out, else test)"
    parser.add_argument("--dataset", metavar="NAME", help="another data set than that of the training, or its path")
    parser.add_argument("--split", choices=("test", "train", "validation"), help=which)
    parser.add_argument("--report", type=Path, metavar="DIR", help="write pictures and an index.html into this folder")
    add_model_options(parser)
    add_data_options(parser)


def run(args: argparse.Namespace) -> int:
    backend, _ = backend_from(args)
    model, config, checkpoint = load_trained(args.checkpoint, backend)
    name = args.dataset or config.data.dataset
    part, dataset = chosen_images(args, config, name)
    check_data(config, dataset)
    batches = Loader(dataset, config.train.batch_size, backend=backend, mean=config.data.mean, std=config.data.std)
    answers: list[Array] = []  # probabilities, where a report wants them

    def loss(logits: Array, labels: Array) -> Any:
        if args.report:
            answers.append(probabilities(logits, backend))
        return backend.run(softmax_cross_entropy, logits, labels)

    result = evaluate(model, batches, loss, args.tta)
    if not isfinite(result.loss):
        raise NotANumberError(f"{args.checkpoint} gives NaN or infinity: the loss on {name}, {part}, is {result.loss}")
    report = {
        "checkpoint": str(args.checkpoint),
        "dataset": name,
        "split": part,
        "tta": args.tta,
        "examples": len(dataset.labels),
        "loss": result.loss,
        "accuracy": result.accuracy,
        **by_class(dataset, result.predictions),
        "epoch": int(checkpoint.progress["epoch"]),
        "device": backend.name,
    }
    if args.json:
        say_json(report)
    else:
        say(*as_lines(report, config.model.name))
    if args.report:
        write_report(args.report, model, config, dataset, np.concatenate(answers), report)
    return 0


def write_report(
    folder: Path, model: Layer, config: Config, dataset: Dataset, answers: Array, report: dict[str, Any]
) -> None:
    """The pictures of ``--report``, and a line that says where they are."""
    make_room(folder, [folder / name for name in (*PICTURES, "index.html")], "--report")
    title = f"{config.model.name} on {report['dataset']}, {report['split']}"
    with writing(folder, "--report"):
        index = save_report(folder, title, model, config.data, dataset, answers, report)
    tell(f"report: {index}")  # standard output may be JSON


def chosen_images(args: argparse.Namespace, config: Config, name: str) -> tuple[str, Dataset]:
    """(name of the split, its images); held-out validation images are not in "train"."""
    train, validation, test = load_fitted(name, args, config, trained=True)
    held_out = bool(config.data.validation) or validation is not None
    part = args.split or ("validation" if held_out else "test")
    if part == "test" and test is not None:
        return part, test
    if part == "test" and name != config.data.dataset:  # images that were not trained on
        return "all images", train
    if part == "test" and held_out:
        raise UsageError(f"--split test: {name} has no test part, give validation or train")
    if part == "validation" and not held_out:
        raise UsageError("--split validation: no images were held out of this training, give test or train")
    train, chosen = split(config, train, test, validation)
    return part, train if part == "train" else chosen


def by_class(dataset: Dataset, predictions: Array) -> dict[str, Any]:
    """The confusion matrix (rows: true class, columns: predicted class), and precision, recall, F1 per class.

    Without the matrix where there are more than ``MOST_IN_MATRIX`` classes.
    """
    labels = range(dataset.num_classes)
    matrix = None
    if dataset.num_classes <= MOST_IN_MATRIX:
        matrix = confusion_matrix(dataset.labels, predictions, labels=labels).tolist()
    scores = precision_recall_fscore_support(dataset.labels, predictions, labels=labels, zero_division=0)
    per_class = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(dataset.classes, *scores, strict=True)
    }
    return {"confusion_matrix": matrix, "per_class": per_class}


def as_lines(report: dict[str, Any], model: str) -> list[str]:
    """The human-readable report."""
    matrix, total = report["confusion_matrix"], report["examples"]
    right = round(report["accuracy"] * total)
    images = counted(total, "image")
    views = "" if report["tta"] == "none" else f", {report['tta']} views of each"
    return [
        *sentence("", f"{report['checkpoint']}: {model}, epoch {report['epoch']}"),
        *sentence("", f"{report['dataset']}, {report['split']}: {images} on {report['device']}{views}"),
        "",
        f"accuracy  {report['accuracy']:.4f}   {right:,} of {total:,}",
        f"loss      {report['loss']:.6f}",
        "",
        *class_table(report["per_class"]),
        *(["", *confused(np.array(matrix), list(report["per_class"]))] if matrix else []),
    ]


def confused(matrix: Array, names: list[str]) -> list[str]:
    """The matrix, or what is largest in it."""
    return (matrix_table if len(matrix) <= WIDE else confusions)(matrix, names)


def class_table(per_class: dict[str, dict[str, Any]]) -> list[str]:
    """One line per class; of many classes those with the lowest F1."""
    rows = [["class", "precision", "recall", "F1", "images"]]
    shown = list(per_class.items())
    if len(shown) > MOST_LISTED:
        shown = sorted(shown, key=lambda item: (not item[1]["support"], item[1]["f1"]))[:WORST]
        rows[0][0] = f"lowest F1 of {len(per_class):,} (--json has all)"
    for name, row in shown:
        scores = (f"{row[key]:.4f}" for key in ("precision", "recall", "f1"))
        rows.append([harmless(name, NAME), *scores, f"{row['support']:,}"])
    return columns(rows, "<>")


def matrix_table(matrix: Array, names: list[str]) -> list[str]:
    """The confusion matrix, a dot for zero; columns are numbered like the rows."""
    rows = [["", *map(str, range(len(names)))]]
    for i, (name, row) in enumerate(zip(names, matrix, strict=True)):
        label = "" if name == str(i) else f" {harmless(name, 12)}"
        rows.append([f"{i:>2}{label}", *(str(count or ".") for count in row)])
    return [*sentence("", "confusion matrix: a row per true class, a column per answer", 0), *columns(rows, "<>")]


def confusions(matrix: Array, names: list[str], limit: int = 12) -> list[str]:
    """The most frequent mistakes, for a matrix that is too large to print."""
    wrong = matrix - np.diag(matrix.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    lines = sentence("", "most frequent mistakes (--json has the whole confusion matrix)", 0)
    for true, answer in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[true, answer]:
            mistake = f"{harmless(names[true], NAME)} taken for {harmless(names[answer], NAME)}"
            lines += sentence(f"{wrong[true, answer]:>6,}", mistake, 8)
    return lines
