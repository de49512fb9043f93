"""The page holds what was recorded, asks for nothing, and its equations are those of the layers."""

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucnn import models
from gpucnn.cli.main import main
from gpucnn.devices import get_backend
from gpucnn.explain import Recording, record
from gpucnn.explain.equations import read
from gpucnn.explain.mathml import equation_to_mathml
from gpucnn.explain.page import Subject, build
from gpucnn.losses import softmax_cross_entropy
from gpucnn.types import Shape

ROOT = Path(__file__).parents[2]
CASES: list[tuple[str, Shape, float]] = [
    ("lenet5", (28, 28, 1), 1.0),
    ("mnist_cnn", (28, 28, 1), 3.0),
    ("resnet20", (32, 32, 3), 3.9),
]
"""Model, image, largest size of its page in MB."""


def page_of(name: str, shape: Shape, backend: str = "reference", steps: int = 1) -> tuple[list[Recording], str]:
    model = models.build(name, shape).initialize(0, get_backend(backend))
    x = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    recordings = record(model, x, np.array([3]), steps=steps)
    channels = shape[2]
    return recordings, build(
        recordings, Subject(name, "noise", (0.5,) * channels, (0.2,) * channels, tuple("0123456789"), 3)
    )


def bytes_of(page: str, part: str) -> bytes:
    text = re.search(rf'id="{part}">([^<]*)<', page)
    assert text is not None
    return zlib.decompress(base64.b85decode(text.group(1).translate(str.maketrans(",.", "<&"))))


class Reader:
    """The tensors of a page."""

    def __init__(self, page: str) -> None:
        self.facts = json.loads(bytes_of(page, "facts"))
        content, width, total = bytes_of(page, "blob"), self.facts["width"], self.facts["total"]
        planes = np.frombuffer(content, np.uint8, width * total)
        dtype = np.dtype(np.float16 if width == 2 else np.float32)
        whole = np.zeros((total, dtype.itemsize), np.uint8)
        whole[:, dtype.itemsize - width :] = planes.reshape(width, -1).T
        self.values = whole.view(dtype).ravel().astype(np.float64)
        self.masks = np.frombuffer(content, np.uint8, offset=planes.size)

    def tensor(self, number: int) -> Any:
        stored = self.facts["store"][number]
        shape, size = stored["shape"], int(np.prod(stored["shape"]))
        if "of" in stored:
            bits = np.unpackbits(self.masks[stored["bits"] :], bitorder="little")[:size]
            return (self.tensor(stored["of"]).ravel() * bits).reshape(shape)
        return np.ldexp(self.values[stored["start"] : stored["start"] + size], stored["exponent"]).reshape(shape)


@pytest.mark.parametrize(("name", "shape", "largest"), CASES, ids=[case[0] for case in CASES])
def test_every_tensor_is_on_the_page_to_one_unit_in_the_last_place_of_float16(
    name: str, shape: Shape, largest: float
) -> None:
    recordings, page = page_of(name, shape)
    reader, step = Reader(page), recordings[0]
    assert len(page) < largest * 1e6
    for layer, numbers in zip([*step.layers.values(), step.loss], reader.facts["steps"][0]["tensors"], strict=True):
        assert numbers.keys() == layer.arrays.keys()
        for symbol, number in numbers.items():
            array = layer.arrays[symbol].astype(np.float64)
            found = reader.tensor(number)
            assert found.shape == array.shape
            smallest = np.abs(array).max(initial=0.0) * 2.0**-24  # float16 in units of the largest
            unit = np.maximum(np.abs(array) * 2.0**-10, smallest)
            assert (np.abs(found - array) <= unit).all(), f"{layer.name} {symbol}"


def test_a_recording_is_what_a_training_step_computes() -> None:
    """On the kernels of the CPU, where neighbours are fused, and step by step with plain gradient descent."""
    shape = (28, 28, 1)
    recordings, _ = page_of("mnist_cnn", shape, "cpu", steps=3)
    model = models.build("mnist_cnn", shape).initialize(0, get_backend("cpu")).train()
    x = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    for step in recordings:
        logits = model.forward(x)
        loss, dlogits = model.backend.run(softmax_cross_entropy, logits, np.array([3]))
        model.backward(dlogits)
        assert step.value == pytest.approx(float(loss), rel=1e-5)
        np.testing.assert_allclose(step.loss.arrays["x"], logits, rtol=1e-4, atol=1e-5)
        for layer in step.layers.values():
            for symbol, path in layer.paths.items():
                found = model.parameters()[path]
                np.testing.assert_allclose(layer.arrays[symbol], found.data, rtol=1e-5, atol=1e-6)
                largest = np.abs(found.grad).max()
                np.testing.assert_allclose(layer.arrays[f"d{symbol}"], found.grad, rtol=0, atol=2e-5 * largest)
        for parameter in model.parameters().values():
            parameter.data[...] -= step.lr * parameter.grad


def test_recording_changes_nothing_in_the_model() -> None:
    model = models.build("mnist_cnn", (28, 28, 1)).initialize(0)
    model.eval().skip_input_grad()
    model.flat.grad[...] = 7.0
    before = [model.state_dict(), model.flat.grad.copy()]
    needs = {name: layer.needs_input_grad for name, layer in model.named_layers()}
    x = np.random.default_rng(0).normal(size=(1, 28, 28, 1)).astype(np.float32)
    wanted = model.forward(x)
    record(model, x, np.array([3]), steps=2, lr=1.0)
    assert np.array_equal(model.forward(x), wanted)
    for name, value in before[0].items():
        assert np.array_equal(model.state_dict()[name], value)
    assert np.array_equal(model.flat.grad, before[1])
    assert not model.training
    assert needs == {name: layer.needs_input_grad for name, layer in model.named_layers()}


def test_a_page_asks_for_nothing(tmp_path: Path) -> None:
    out = tmp_path / "explain.html"
    assert main(["explain", "--out", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert not re.search(r"https?://|src=|@import|url\(|fetch\(|XMLHttp|WebSocket|import\(", page)
    assert len(page) < 1e6


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--steps", "0"], "--steps 0: give a number from 1 to 50"),
        (["--lr", "nan"], "--lr nan"),
        (["--label", "seven"], "no such class"),
        (["--dataset", "digits"], "add --index"),
        (["--index", "1", "--label", "1"], "leave it out"),
        (["--out", "/nowhere/page.html"], "there is no folder /nowhere"),
    ],
)
def test_what_cannot_be_meant_is_one_line(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *flags]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_the_page_in_docs_is_one_that_the_command_makes_now() -> None:
    page = (ROOT / "docs" / "explain_lenet5.html").read_text(encoding="utf-8")
    for part in ("page.js", "page.css"):
        assert (ROOT / "gpucnn" / "explain" / part).read_text(encoding="utf-8") in page, "run: gpucnn explain --out ..."
    _, new = page_of("lenet5", (28, 28, 1))
    names = [[equation["mathml"] for equation in layer["equations"]] for layer in Reader(page).facts["layers"]]
    assert names == [[e["mathml"] for e in layer["equations"]] for layer in Reader(new).facts["layers"]]


def test_cases_are_a_brace_with_a_row_each() -> None:
    x = {"x": (1, 2), "y": (1, 2)}
    cases = equation_to_mathml(read("y[...] = where(x[...] > 3, where(x[...] < 9, 1, 2), 1e-5)  # a", {}, x))
    assert cases.count("<mtable>") == 2
    assert "where" not in cases
    assert "<mn>10</mn><mn>−5</mn>" in cases
    chain = equation_to_mathml(read("y[...] = where(x[...] > 3, 1, where(x[...] > 2, 2, 4))  # a", {}, x))
    assert (chain.count("<mtable>"), chain.count("<mtr>"), chain.count("if\u00a0")) == (1, 3, 2)


@pytest.mark.parametrize("floats", [False, True])
def test_a_model_that_knows_no_digits_takes_an_image_of_its_own_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], floats: bool
) -> None:
    images = np.random.default_rng(0).integers(0, 255, (20, 8, 8))
    np.savez(tmp_path / "set.npz", images=images / 9 if floats else images.astype(np.uint8), labels=["a", "b"] * 10)
    run = ["--dataset", str(tmp_path / "set.npz"), "--model", "mlp", "--epochs", "1", "--output", str(tmp_path / "run")]
    assert main(["train", *run]) == 0
    command = ["explain", "--checkpoint", str(tmp_path / "run" / "last.h5"), "--out", str(tmp_path / "page.html")]
    assert main(command) == 2
    assert "knows no grey digits" in capsys.readouterr().err
    assert main([*command, "--index", "1"]) == 0
    facts = json.loads(bytes_of((tmp_path / "page.html").read_text(encoding="utf-8"), "facts"))
    assert len(facts["subject"]["mean"]) == (
        0 if floats else 1
    )  # floats have a scale of their own, without black and white
