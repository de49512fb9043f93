"""CUDA graphs of training steps, on a double of CUDA: the bits of eager steps, one capture, refused visibly."""

from dataclasses import replace

import fake_cuda
import numpy as np
import pytest
import strict_cupy
from branched_net import branched
from strict_cupy import STRICT
from trainer_settings import arguments, copy_state

from gpucnn import optim
from gpucnn.backend import REFERENCE, guarded
from gpucnn.data import Augmentation, Dataset
from gpucnn.devices import get_backend
from gpucnn.devices.gpu import UncapturableOps, table
from gpucnn.errors import DeviceError, UsageError
from gpucnn.kernels.gpu import muon as muon_kernel
from gpucnn.kernels.gpu.cudnn.library import Library
from gpucnn.kernels.gpu.cudnn.options import Options
from gpucnn.layers import BatchNorm, Conv2D, Dropout, Flatten, Linear, ReLU, Residual, Sequential
from gpucnn.optim import averages, schedules
from gpucnn.optim.averages import EMA, Lookahead
from gpucnn.optim.muon import Muon, muon_update
from gpucnn.runs.config import Config
from gpucnn.training.cuda_graph import WARMUP
from gpucnn.training.precision import FLOAT32, Policy
from gpucnn.training.trainer import Trainer

READING = (averages.lerp, optim.sgd_update, optim.momentum_update, optim.adam_update, muon_update)
"""Ops whose kernels read their numbers at each launch."""

GRAPHS = replace(STRICT, kernels={op: strict_cupy.kernel(op) for op in READING}, uncapturable_ops=list)


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    """The double of CUDA, without any calls yet."""
    monkeypatch.setattr(strict_cupy, "cuda", fake_cuda.cuda, raising=False)
    monkeypatch.setattr(strict_cupy, "get_default_memory_pool", fake_cuda.MemoryPool, raising=False)
    fake_cuda.events.clear()
    yield fake_cuda.events
    assert strict_cupy.tape is None


def images(count: int = 22) -> Dataset:
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (count, 6, 6, 2)), rng.integers(0, 3, count)
    return Dataset("noise", pixels[..., :1].astype(np.uint8), labels.astype(np.uint8), tuple("abc"))


def net() -> Sequential:
    body = Sequential(Conv2D(4, 4, 3, padding=1), BatchNorm(4), Dropout(0.2))
    return Sequential(
        Conv2D(1, 4, 3, padding=1), BatchNorm(4), ReLU(), Residual(body, relu=True), Flatten(), Dropout(0.3),
        Linear(144, 3),
    )  # fmt: skip


def trainer(optimizer=None, backend=GRAPHS, **changes) -> Trainer:
    if decay := changes.pop("ema", None):
        changes["averages"] = [EMA(decay), Lookahead(2, 18)]
    settings = {
        "batch_size": 8,  # batches of 8, 8 and 6
        "schedule": schedules.cosine(0.1, 20),
        "augmentation": Augmentation(flip=True, crop=1),
        "seed": 7,
        "log_interval": 2,
        **changes,
    }
    model = settings.pop("model", net)()
    return Trainer(model, optimizer or optim.SGD(0.1, momentum=0.9), backend=backend, **arguments(settings))


def everything(one: Trainer) -> dict[str, bytes]:
    arrays = {**one.model.state_dict(), **{name: a.get() for name, a in one.optimizer.state.items()}}
    return {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("optimizer", "changes", "counts"),
    [
        # 12 steps of 8 images and 6 of 6, of which the first three of each are eager
        (lambda: optim.SGD(0.1, momentum=0.9, nesterov=True), {}, (2, 12)),
        (lambda: optim.AdamW(1e-2, weight_decay=0.1), {"clip_grad": 0.5}, (2, 12)),
        (lambda: Muon(0.1), {"policy": Policy("float16", interval=3)}, (2, 12)),
        (lambda: optim.SGD(0.1, momentum=0.9), {"policy": Policy("float16", interval=3)}, (2, 12)),
        # Lookahead resets the weights in every other step: 6 + 6 of 8 images, 3 + 3 of 6
        (lambda: optim.SGD(0.1, momentum=0.9), {"ema": 0.9}, (2, 6)),
        # frozen from step 7 on: 5 + 2 before, 1 + 1 until the epoch ends; all over again from there, 6 + 3
        (lambda: optim.SGD(0.1, groups={"filter": optim.GroupRule(steps=7)}), {"clip_grad": 0.5}, (2, 5)),
        (lambda: optim.SGD(0.1), {"model": lambda: branched(1, 3)}, (2, 12)),
        (lambda: optim.SGD(0.1), {"augmentation": Augmentation(mixup=0.5, cutmix=1.0), "reduction": "sum"}, (2, 12)),
    ],
    ids=["nesterov", "adamw", "muon", "float16", "averages", "frozen filters", "branched", "mixed images"],
)
def test_replayed_steps_are_the_bits_of_eager_ones(optimizer, changes, counts, cuda) -> None:
    ends = []
    for mode in ("off", "on"):
        one = trainer(optimizer(), cuda_graph=mode, **changes)
        reports = list(one.fit(images(), images(), epochs=6))
        ends.append((everything(one), one.progress, [report.train_loss for report in reports]))
    assert ends[0] == ends[1]
    assert (cuda.count("begin"), cuda.count("launch")) == counts


def test_calls_of_cuda(cuda) -> None:
    one, xp = trainer(drop_last=True), GRAPHS.xp
    x, labels = xp.asarray(np.ones((8, 6, 6, 1), np.float32)), xp.asarray(np.zeros(8, np.int64))
    one.train_step(x, labels)
    assert cuda == ["synchronize", "pool", "stream", "stream left", "pool left", "synchronize"]
    for _ in range(WARMUP - 1):
        one.train_step(x, labels)
    cuda.clear()
    strict_cupy.reset()
    one.train_step(x, labels)
    assert cuda == ["pool", "stream", "begin", "end", "stream left", "pool left", "launch"]
    eager = strict_cupy.launches
    cuda.clear()
    strict_cupy.reset()
    one.train_step(x, labels)
    assert cuda == ["launch"]
    assert strict_cupy.syncs == 0
    assert (eager > 200, strict_cupy.launches) == (True, 4)  # left: a copy of the batch, its labels, the step, the rate


@pytest.mark.parametrize("stop_at", [1, 4, 7, 11])
def test_a_resumed_run_ends_in_the_same_bits(stop_at) -> None:
    def stop(one):
        one.stop_requested = one.clock.step > stop_at

    whole = trainer()
    list(whole.fit(images(), images(), epochs=6))
    first = trainer()
    list(first.fit(images(), images(), epochs=6, watch=lambda _: stop(first)))
    second = trainer()
    copy_state(first, second)
    list(second.fit(images(), images(), epochs=6))
    assert everything(second) == everything(whole)
    assert second.progress == whole.progress


@pytest.mark.parametrize(("limit", "room"), [(0, 0), (1000, 900), (50, 1)])
def test_graphs_share_the_memory_that_is_left(limit, room, monkeypatch) -> None:
    monkeypatch.setattr(strict_cupy, "get_default_memory_pool", lambda: fake_cuda.MemoryPool(limit))
    one, used, using = trainer(), [], strict_cupy.cuda.using_allocator
    monkeypatch.setattr(strict_cupy.cuda, "using_allocator", lambda malloc: used.append(malloc) or using(malloc))
    list(one.fit(images(), images(), epochs=1))
    assert len(one.compute.steps) == 2
    assert one.compute.pool.limit == room
    assert set(used) == {one.compute.pool.malloc}


def test_what_runs_on_cublas_is_no_graph_and_says_so(cuda, capsys) -> None:
    refusing = replace(GRAPHS, uncapturable_ops=lambda: ["linear"])
    one, plain = trainer(backend=refusing), trainer(cuda_graph="off")
    for each in (one, plain):
        list(each.fit(images(), images(), epochs=2))
    assert "begin" not in cuda
    assert capsys.readouterr().err.splitlines() == ["gpucnn: no CUDA graph: linear on cuBLAS cannot be part of one"]
    assert everything(one) == everything(plain)
    with pytest.raises(DeviceError, match="linear on cuBLAS"):
        list(trainer(backend=refusing, cuda_graph="on").fit(images(), images(), epochs=1))


def test_muon_without_cudnn_multiplies_on_cublas_and_is_no_graph(cuda, capsys, monkeypatch) -> None:
    uncapturable = UncapturableOps()
    row = table(Options(cudnn=False))[muon_update]
    kernels = {**GRAPHS.kernels, muon_update: guarded(muon_update, row, uncapturable.watched(muon_update))}
    backend = replace(GRAPHS, kernels=kernels, uncapturable_ops=uncapturable.pop)
    one, plain = (trainer(Muon(0.1), backend=backend, cuda_graph=mode) for mode in ("auto", "off"))
    for each in (one, plain):
        list(each.fit(images(), images(), epochs=2))
    assert everything(one) == everything(plain)
    assert "begin" not in cuda
    assert capsys.readouterr().err == "gpucnn: no CUDA graph: muon_update on cuBLAS cannot be part of one\n"


def test_a_step_that_waits_cannot_be_captured() -> None:
    def waiting(logits, labels):
        return float(logits.sum()), 0.0 * logits

    with pytest.raises(DeviceError, match=r"capturing.*--cuda-graph off"):
        list(trainer(loss=waiting).fit(images(), images(), epochs=6))


@pytest.mark.parametrize("backend", [REFERENCE, STRICT, get_backend("cpu")], ids=lambda backend: backend.name)
def test_without_graphs_steps_are_eager_or_it_is_an_error(backend) -> None:
    one = trainer(backend=backend)
    assert one.compute == one.descend
    with pytest.raises(UsageError, match="cuda_graph"):
        trainer(backend=backend, cuda_graph="on")
    with pytest.raises(UsageError, match="cuda_graph = 'onn': give one of auto, on, off"):
        trainer(backend=backend, cuda_graph="onn")
    with pytest.raises(UsageError, match=r"run\.cuda_graph = 'onn'"):
        Config().updated({"run": {"cuda_graph": "onn"}})


@pytest.mark.gpu
@pytest.mark.parametrize("policy", [FLOAT32, Policy("float16", interval=3)], ids=["float32", "float16"])
@pytest.mark.parametrize("changes", [{}, {"clip_grad": 0.5, "ema": 0.9}], ids=["plain", "clipped and averaged"])
def test_on_a_gpu_replayed_steps_are_the_bits_of_eager_ones(changes, policy, monkeypatch) -> None:
    monkeypatch.undo()
    gpu, ends = get_backend("gpu"), []
    for mode in ("off", "on"):
        one = trainer(backend=gpu, cuda_graph=mode, policy=policy, **changes)
        list(one.fit(images(), images(), epochs=6))
        ends.append((everything(one), one.progress))
    assert ends[0] == ends[1]


@pytest.mark.gpu
@pytest.mark.parametrize("policy", [FLOAT32, Policy("float16", interval=3)], ids=["float32", "float16"])
def test_on_a_gpu_muons_replayed_steps_are_the_bits_of_eager_ones(policy, monkeypatch) -> None:
    monkeypatch.undo()
    if refusal := muon_kernel.Muon(Library(Options())).refusal((4, 9)):
        pytest.skip(refusal)
    ends = []
    for mode in ("off", "on"):
        one = trainer(Muon(0.1), backend=get_backend("gpu"), cuda_graph=mode, policy=policy)
        list(one.fit(images(), images(), epochs=6))
        ends.append((everything(one), one.progress))
    assert ends[0] == ends[1]


@pytest.mark.gpu
def test_on_a_gpu_graphs_keep_their_memory(monkeypatch) -> None:
    """Other work may not be given what a graph writes to."""
    monkeypatch.undo()
    gpu, ends = get_backend("gpu"), []
    for mode in ("off", "on"):
        one, junk = trainer(backend=gpu, cuda_graph=mode), []
        for _ in one.fit(images(), images(), epochs=6):
            junk = [gpu.xp.full(size, np.nan, "float32") for size in range(1, 5000, 7)]
        ends.append(everything(one))
        del junk
    assert ends[0] == ends[1]
