"""Where a step's time goes: every op is in the table, and looking changes nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from gpucnn import models, optim
from gpucnn.backend import REFERENCE
from gpucnn.bench.profiler import Call, explain, rows, stopwatch, table
from gpucnn.cli.main import main
from gpucnn.devices import get_backend
from gpucnn.layers.activations import relu
from gpucnn.training.trainer import Trainer


def test_calls_are_counted_and_shared_out() -> None:
    calls = [Call("conv", "a.py", "x", 0.1), Call("conv", "a.py", "y", 0.5), Call("conv", "a.py", "x", 0.3)] * 2
    found = rows(calls, 4.0, 2)
    assert [(row.op, row.algorithm, row.count) for row in found[:2]] == [("conv", "y", 1), ("conv", "x", 2)]
    assert [row.milliseconds for row in found] == pytest.approx([500, 200, 1100])
    assert [row.share for row in found] == pytest.approx([0.25, 0.2, 0.55])


def test_a_stopwatch_runs_what_the_backend_runs() -> None:
    watch = stopwatch(replace(REFERENCE, kernels={relu: lambda x: x + 7}))
    assert watch.run(relu, 1) == 8
    assert watch.run(np.maximum, 1, 2) == 2
    assert [call.op for call in watch.calls] == ["relu", "maximum"]
    assert watch.calls[1].kernel == "reference"


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_all_ops_of_a_step_are_there(device, mode) -> None:
    shape = (12, 12, 1)
    backend = stopwatch(get_backend(device))
    trainer = Trainer(models.build("mnist_cnn", shape), optim.SGD(0.01, momentum=0.9), backend=backend, batch_size=4)
    found = explain(trainer, shape, 10, mode=mode)
    counts: dict[str, float] = {}
    for row in found:
        counts[row.op] = counts.get(row.op, 0) + row.count
    assert counts["conv2d"] == 3
    if mode == "train":
        assert counts["conv2d_weight_grad"] == 3
        assert counts["conv2d_input_grad"] == 2
        assert counts["softmax_cross_entropy"] == counts["dropout"] / 2 == 1
    else:
        assert "conv2d_weight_grad" not in counts
    fractions = [row.share for row in found]
    assert sum(fractions) == pytest.approx(1)
    assert fractions[:-1] == sorted(fractions[:-1], reverse=True)
    assert len({len(line) for line in table(found)}) == 1


def test_convolutions_say_which_way_they_take() -> None:
    pytest.importorskip("numba")
    from gpucnn.kernels.cpu.conv.conv2d import DIRECT, WINOGRAD

    backend = stopwatch(get_backend("cpu"))
    trainer = Trainer(models.build("mnist_cnn", (12, 12, 1)), optim.SGD(0.01), backend=backend, batch_size=16)
    found = {(row.op, row.algorithm): row for row in explain(trainer, (12, 12, 1), 10)}
    assert found["conv2d", DIRECT].count == 1
    assert found["conv2d", WINOGRAD].count == 2
    assert found["conv2d_input_grad", WINOGRAD].kernel == "kernels/cpu/conv/conv2d.py"


def test_benchmark_explains(capsys) -> None:
    words = ["benchmark", "--model", "lenet5", "--input-shape", "28x28x1", "-b", "4", "--device", "reference"]
    assert main([*words, "--explain"]) == 0
    assert "conv2d_weight_grad" in capsys.readouterr().out
    assert main([*words, "--explain", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["task"]["model"] == "lenet5"
    assert {"op", "kernel", "algorithm", "count", "milliseconds", "share"} == set(result["ops"][0])


def test_explaining_a_run_does_not_change_it(tmp_path, capsys) -> None:
    words = ["train", "--device", "reference", "--epochs", "1"]
    assert main([*words, "--output", str(tmp_path / "plain")]) == 0
    assert "momentum_update" not in capsys.readouterr().out
    assert main([*words, "--explain", "--output", str(tmp_path / "explained")]) == 0
    assert "momentum_update" in capsys.readouterr().out
    plain, explained = ((tmp_path / name / "last.h5").read_bytes() for name in ("plain", "explained"))
    assert plain == explained
