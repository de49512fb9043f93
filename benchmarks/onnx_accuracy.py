"""Exported nets on whole test sets, by onnxruntime and by gpucnn: ``python benchmarks/onnx_accuracy.py``.

Writes the ONNX file of each pretrained model, runs both over the test set it was made for (in GPUCNN_DATA_DIR or
downloaded), and says how many images are right, how many get the same class from both, and how far logits differ.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gpucnn.cli.main import main as gpucnn
from gpucnn.data import load_dataset
from gpucnn.devices import get_backend
from gpucnn.inference.predict import normalise
from gpucnn.runs.state import load_trained

SETS = {"mnist_lenet": "mnist", "cifar10_speedrun94": "cifar10"}
BATCH = 500


def compared(name: str, device: str, fold: bool) -> dict[str, object]:
    """What both make of a model's test set."""
    model, config, _ = load_trained(Path(name), get_backend(device))
    with TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        words = ["export", "--checkpoint", name, "--out", str(file), *([] if fold else ["--no-fold"])]
        if gpucnn(words):
            raise SystemExit(1)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    test = load_dataset(SETS[name])[1]
    right, same, error, largest = np.zeros(2, int), 0, 0.0, 0.0
    for start in range(0, len(test.images), BATCH):
        images, labels = np.asarray(test.images[start : start + BATCH]), test.labels[start : start + BATCH]
        logits = session.run(["logits"], {"pixels": images})[0]
        x = normalise(images, config.data.mean, config.data.std, model.backend)
        own = model.backend.to_host(model.forward(x))
        classes = logits.argmax(axis=1), own.argmax(axis=1)
        right += [(found == labels).sum() for found in classes]
        same += (classes[0] == classes[1]).sum()
        error, largest = max(error, abs(logits - own).max()), max(largest, abs(own).max())
    counts = {"images": len(test.images), "right_onnxruntime": int(right[0]), "right_gpucnn": int(right[1])}
    numbers = {"same_class": int(same), "largest_difference": float(error), "largest_logit": float(largest)}
    return {"model": name, "fold": fold, "device": device, "onnxruntime": onnxruntime.__version__} | counts | numbers


def main() -> int:
    """Print a line of JSON per model and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="of gpucnn")
    parser.add_argument("models", nargs="*", default=list(SETS), metavar="MODEL", help="pretrained models")
    args = parser.parse_args()
    for name in args.models:
        for fold in (True, False):
            print(json.dumps(compared(name, args.device, fold)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
