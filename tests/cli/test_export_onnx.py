"""``gpucnn export`` into an ONNX file, run by onnx alone."""

import builtins
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpucnn.cli.main import main
from gpucnn.data import load_dataset
from gpucnn.inference.predict import normalise
from gpucnn.layers.softmax import softmax
from gpucnn.runs.state import load_trained

if not find_spec("onnx"):
    pytest.skip("onnx is not installed", allow_module_level=True)

import onnx
from onnx.reference import ReferenceEvaluator


def export(checkpoint: object, out: Path, *words: str) -> int:
    return main(["export", "--checkpoint", str(checkpoint), "--out", str(out), *words])


@pytest.mark.parametrize(
    ("name", "dataset", "count", "words"),
    [("mnist_lenet", "digits", 200, []), ("cifar10_speedrun94", "synthetic", 8, ["--no-fold", "--opset", "20"])],
)
def test_pretrained_models_answer_alike(
    name: str, dataset: str, count: int, words: list[str], tmp_path, capsys
) -> None:
    out = tmp_path / "model.onnx"
    assert export(name, out, *words) == 0
    assert hashlib.sha256(out.read_bytes()).hexdigest() in capsys.readouterr().out
    model, config, _ = load_trained(Path(name))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *config.model.input_shape), dtype=np.uint8)
    if dataset == "digits":  # 8x8, in the middle of MNIST's 28x28
        images[...] = 0
        small = np.asarray(load_dataset("digits")[0].images[:count])
        images[:, 6:22, 6:22] = small.repeat(2, axis=1).repeat(2, axis=2)
    logits, probabilities = ReferenceEvaluator(str(out)).run(["logits", "probabilities"], {"pixels": images})
    wanted = model(normalise(images, config.data.mean, config.data.std, model.backend))
    assert abs(logits - wanted).max() <= 1e-5 * abs(wanted).max()
    assert (logits.argmax(axis=1) == wanted.argmax(axis=1)).all()
    np.testing.assert_allclose(probabilities, softmax(wanted), atol=1e-5)
    metadata = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert tuple(json.loads(metadata["classes"])) == config.data.classes
    assert metadata["model"] == config.model.name


def test_the_weights_are_the_averaged_ones(tmp_path: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "model.onnx"
    words = ["train", "--device", "reference", "--model", "mlp", "--epochs", "1", "--ema", "0.9"]
    assert main([*words, "--output", str(run)]) == 0
    assert export(run / "last.h5", out) == 0
    images = np.asarray(load_dataset("digits")[1].images[:50])
    model, config, checkpoint = load_trained(run / "last.h5")
    wanted = model(normalise(images, config.data.mean, config.data.std, model.backend))
    found = ReferenceEvaluator(str(out)).run(["logits"], {"pixels": images})[0]
    assert abs(found - wanted).max() <= 1e-5 * abs(wanted).max()
    model.load_state_dict({**checkpoint.parameters, **checkpoint.buffers})
    assert abs(model(normalise(images, config.data.mean, config.data.std, model.backend)) - wanted).max() > 1e-3


def test_flags_that_make_no_sense_and_a_place_without_a_file(trained, tmp_path: Path, capsys) -> None:
    onnx_file, device = tmp_path / "model.onnx", tmp_path / "null.onnx"
    device.symlink_to("/dev/null")
    for out, words, reason in (
        (onnx_file, ["--opset", "9"], "--opset 9: give a number from 13 to 22"),
        (onnx_file, ["--half"], "ONNX files have float32 weights"),
        (tmp_path / "model.h5", ["--no-fold"], "it is for files that end in .onnx"),
        (tmp_path / "model.h5", ["--opset", "17"], "it is for files that end in .onnx"),
        (device, [], "exists: choose another name"),
    ):
        assert export(trained.path, out, *words) == 2
        assert reason in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["null.onnx"]


def test_without_onnx_the_remedy_is_named(trained, tmp_path: Path, capsys, monkeypatch) -> None:
    import_module = builtins.__import__

    def missing(name: str, *args: Any) -> Any:
        if name == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'")
        return import_module(name, *args)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert export(trained.path, tmp_path / "model.onnx") == 2
    assert "pip install 'gpucnn[onnx]'" in capsys.readouterr().err


def test_a_layer_of_a_plugin_is_refused_by_name(tmp_path: Path, capsys) -> None:
    plugin, net = tmp_path / "mine.py", tmp_path / "net.toml"
    plugin.write_text(
        "from gpucnn import models\nfrom gpucnn.layers import ReLU\n\n\n@models.register\nclass Mine(ReLU):\n    pass\n"
    )
    net.write_text(
        '[model]\nname = "custom"\n[[model.layers]]\nlayer = "Flatten"\n[[model.layers]]\nlayer = "Mine"\n'
        '[[model.layers]]\nlayer = "Linear"\nout_features = "classes"\n'
    )
    run = tmp_path / "run"
    words = ["--config", str(net), "--plugin", str(plugin), "--device", "reference", "--epochs", "1"]
    assert main(["train", *words, "--output", str(run)]) == 0
    capsys.readouterr()
    assert export(run / "last.h5", tmp_path / "model.onnx", "--plugin", str(plugin)) == 2
    assert "layer 1 is a Mine, which has no ONNX form" in capsys.readouterr().err
    assert not (tmp_path / "model.onnx").exists()
