"""``gpucnn evaluate``: loss, accuracy and a report per class of a checkpoint.

Batch size, normalisation and model come from the config in the file, so that loss and accuracy equal those that
training logged, to the last digit.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from gpucnn.cli.columns import columns
from gpucnn.cli.options import add_data_options, add_model_options, backend_from, writing
from gpucnn.data import Dataset, Loader, load_dataset
from gpucnn.errors import UsageError
from gpucnn.inference.evaluate import evaluate
from gpucnn.inference.predict import probabilities
from gpucnn.layers import Layer
from gpucnn.losses import softmax_cross_entropy
from gpucnn.plots.report import save_report
from gpucnn.runs.build import check_data, split
from gpucnn.runs.config import Config
from gpucnn.runs.state import load_trained
from gpucnn.types import Array

WIDE = 12  # classes of the largest confusion matrix that fits on 80 columns


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = "which images (default: those that training tested on: validation where held out, else test)"
    parser.add_argument("--dataset", metavar="NAME", help="another data set than that of the training")
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
    print(json.dumps(report) if args.json else as_text(report, config.model.name))
    if args.report:
        write_report(args.report, model, config, dataset, np.concatenate(answers), report)
    return 0


def write_report(
    folder: Path, model: Layer, config: Config, dataset: Dataset, answers: Array, report: dict[str, Any]
) -> None:
    """The pictures of ``--report``, and a line that says where they are."""
    with writing(folder, "--report"):
        folder.mkdir(parents=True, exist_ok=True)
    title = f"{config.model.name} on {report['dataset']}, {report['split']}"
    with writing(folder, "--report"):
        index = save_report(folder, title, model, config.data, dataset, answers, report)
    print(f"report: {index}", file=sys.stderr)  # standard output may be JSON


def chosen_images(args: argparse.Namespace, config: Config, name: str) -> tuple[str, Dataset]:
    """(name of the split, its images); held-out validation images are not in "train"."""
    train, test = load_dataset(name, args.data_dir, download=not args.no_download)
    part = args.split or ("validation" if config.data.validation else "test")
    if part == "test":
        return part, test
    if part == "validation" and not config.data.validation:
        raise UsageError("--split validation: no images were held out of this training, give test or train")
    train, validation = split(config, train, test)
    return part, train if part == "train" else validation


def by_class(dataset: Dataset, predictions: Array) -> dict[str, Any]:
    """The confusion matrix (rows: true class, columns: predicted class), and precision, recall, F1 per class."""
    labels = range(dataset.num_classes)
    matrix = confusion_matrix(dataset.labels, predictions, labels=labels)
    scores = precision_recall_fscore_support(dataset.labels, predictions, labels=labels, zero_division=0)
    per_class = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for name, p, r, f, n in zip(dataset.classes, *scores, strict=True)
    }
    return {"confusion_matrix": matrix.tolist(), "per_class": per_class}


def as_text(report: dict[str, Any], model: str) -> str:
    """The human-readable report, on 80 columns."""
    matrix = np.array(report["confusion_matrix"])
    right, total = int(matrix.trace()), report["examples"]
    views = "" if report["tta"] == "none" else f", {report['tta']} views of each"
    lines = [
        f"{report['checkpoint']}: {model}, epoch {report['epoch']}",
        f"{report['dataset']}, {report['split']}: {total:,} images on {report['device']}{views}",
        "",
        f"accuracy  {report['accuracy']:.4f}   {right:,} of {total:,}",
        f"loss      {report['loss']:.6f}",
        "",
        *class_table(report["per_class"]),
        "",
        *(matrix_table if len(matrix) <= WIDE else confusions)(matrix, list(report["per_class"])),
    ]
    return "\n".join(lines)


def class_table(per_class: dict[str, dict[str, Any]]) -> list[str]:
    """One line per class."""
    rows = [["class", "precision", "recall", "F1", "images"]]
    for name, row in per_class.items():
        rows.append([name[:20], *(f"{row[key]:.4f}" for key in ("precision", "recall", "f1")), f"{row['support']:,}"])
    return columns(rows, "<>")


def matrix_table(matrix: Array, names: list[str]) -> list[str]:
    """The confusion matrix, a dot for zero; columns are numbered like the rows."""
    width = max(4, len(str(matrix.max())) + 1)
    lines = ["confusion matrix: a row per true class, a column per answer"]
    lines.append(" " * 15 + "".join(f"{i:>{width}}" for i in range(len(names))))
    for i, (name, row) in enumerate(zip(names, matrix, strict=True)):
        label = "" if name == str(i) else name[:11]
        lines.append(f"{i:>2} {label:<12}" + "".join(f"{count or '.':>{width}}" for count in row))
    return lines


def confusions(matrix: Array, names: list[str], limit: int = 12) -> list[str]:
    """The most frequent mistakes, for a matrix that is too large to print."""
    wrong = matrix - np.diag(matrix.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    lines = ["most frequent mistakes (--json has the whole confusion matrix)"]
    for true, answer in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[true, answer]:
            lines.append(f"{wrong[true, answer]:>6,}  {names[true][:30]} taken for {names[answer][:30]}")
    return lines
