"""``gpucnn parity``: names what is wrong, and says so with its exit code."""

import json

import numpy as np
import pytest

from gpucnn.backend import Backend
from gpucnn.cli import parity
from gpucnn.cli.main import main
from gpucnn.devices import gpu_problem
from gpucnn.layers.conv2d import conv2d_input_grad, conv2d_weight_grad

LENET = ["parity", "--model", "lenet5", "-b", "2"]
MNIST = ["parity", "--model", "mnist_cnn", "--input-shape", "8x8x1", "-b", "4"]


def use(monkeypatch, op, kernel) -> None:
    backend = Backend("broken", np, {op: kernel})
    monkeypatch.setattr(parity, "get_backend", lambda name: backend)


def test_equal_backends_differ_by_nothing(capsys) -> None:
    assert main([*MNIST, "--device", "reference", "--steps", "2"]) == 0
    out = capsys.readouterr().out
    table = out.partition("each layer alone")[2].partition("whole net")[0]
    rows = [line.split() for line in table.splitlines()[1:] if line]
    assert [row[:2] for row in rows][:3] == [
        ["features.0", "Conv2D"], ["features.1", "BatchNorm"], ["features.1.relu", "ReLU"],
    ]  # fmt: skip
    assert {number for row in rows for number in row[2:]} == {"0.0", "0"}
    assert "loss curve, 2 steps" in out
    assert out.endswith("21 layers, losses and optimizers alone, all within their tolerance\n")


def test_a_wrong_kernel_is_named_and_the_exit_code_is_1(capsys, monkeypatch) -> None:
    use(monkeypatch, conv2d_weight_grad, lambda *args: conv2d_weight_grad(*args) * np.float32(1.001))
    assert main([*LENET, "--steps", "0"]) == 1
    lines = capsys.readouterr().out.splitlines()
    marked = [line.split()[0] for line in lines if "WRONG: weight over 2e-05" in line]
    assert marked == ["features.0", "features.3"]
    assert lines[-1] == "2 of 17 over their tolerance: lenet5 features.0 (Conv2D), lenet5 features.3 (Conv2D)"
    assert sum("WRONG" in line for line in lines) == 2


def strict(text: str):
    """JSON without the numbers that only Python reads."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_has_every_array(capsys, monkeypatch) -> None:
    use(monkeypatch, conv2d_input_grad, lambda *args: conv2d_input_grad(*args).astype(np.float64))
    assert main([*MNIST, "--json", "--steps", "2", "--seed", "3"]) == 1
    found = strict(capsys.readouterr().out)
    assert set(found) == {"machine", "passed", "models"}
    assert found["passed"] is False
    (model,) = found["models"]
    assert set(model) == {
        "model", "candidate", "input_shape", "batch_size", "seed", "passed", "layers", "whole", "training",
    }  # fmt: skip
    settings = {key: model[key] for key in ("model", "candidate", "input_shape", "batch_size", "seed", "passed")}
    assert settings == {
        "model": "mnist_cnn", "candidate": "broken", "input_shape": [8, 8, 1], "batch_size": 4, "seed": 3,
        "passed": False,
    }  # fmt: skip
    keys = {"layer", "kind", "direction", "array", "relative", "ulps", "tolerance", "passed"}
    assert all(set(row) == keys for row in model["layers"])
    wrong = [row for row in model["layers"] if not row["passed"]]
    assert [(row["layer"], row["array"], row["relative"]) for row in wrong] == [
        (f"features.{i}", "dx", None) for i in (0, 2, 5)  # another dtype: infinitely far, which JSON calls null
    ]  # fmt: skip
    distances = {"candidate_to_reference", "candidate_to_float64", "reference_to_float64"}
    assert all(set(row) == {"part", "name", *distances} for row in model["whole"])
    assert {row["part"] for row in model["whole"]} == {"output", "loss", "gradient", "statistic"}
    training = model["training"]
    assert set(training) == {"reference", "candidate", "float64", "deviations"}
    assert all(len(training[curve]) == 2 for curve in ("reference", "candidate", "float64"))
    assert [row["part"] for row in training["deviations"]] == ["loss curve", "weights"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "lenet"], "unknown model 'lenet': did you mean 'lenet5'?"),
        (["--model", "lenet5", "--input-shape", "8x8x1"], "does not fit"),
        (["--input-shape", "28x28"], "--input-shape '28x28'"),
        (["--input-shape", "28x0x1"], "--input-shape '28x0x1'"),
        (["--input-shape", "axbxc"], "--input-shape 'axbxc'"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--steps", "-1"], "--steps -1"),
        (["--device", "tpu"], "device 'tpu'"),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_2(capsys, words, message) -> None:
    assert main(["parity", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.skipif(gpu_problem() is None, reason="there is a GPU")
def test_no_gpu_is_one_line_and_exit_6(capsys) -> None:
    assert main(["parity", "--device", "gpu"]) == 6
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("gpucnn: error: ")
    assert captured.err.count("\n") == 1


def test_all_small_models_and_no_others_by_default() -> None:
    chosen = dict(parity.cases(None, None))
    assert set(chosen) == {"lenet5", "mnist_cnn", "vgg_small", "resnet20", "densenet", "mlp", "speedrun94"}
    assert chosen["lenet5"] == (28, 28, 1)
    assert parity.cases("resnet18", "16x16x3") == [("resnet18", (16, 16, 3))]


@pytest.mark.gpu
@pytest.mark.parametrize("words", [LENET, MNIST, ["parity", "--model", "resnet20", "--input-shape", "16x16x3"]])
def test_a_gpu_is_within_its_tolerance(words) -> None:
    assert main([*words, "--device", "gpu"]) == 0
