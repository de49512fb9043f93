"""Nets and weights to PyTorch and back: equal bits, equal answers, an equal training step."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpucnn import layers as L
from gpucnn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from gpucnn.cli.main import main
from gpucnn.models import MODELS, build
from gpucnn.runs.build import described
from gpucnn.runs.config import Config, ModelConfig
from gpucnn.runs.imported import PROGRESS
from gpucnn.runs.state import expected_tensors

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytestmark = pytest.mark.torch


def own_net() -> L.Layer:
    """A net with what the models lack: every kind of layer whose form in PyTorch is not that of one of them."""
    first = (L.Conv2D(3, 8, 2, padding="same"), L.GroupNorm(2, 8), L.SiLU())
    narrow = L.Sequential(L.Conv2D(6, 2, 1), L.Hardswish())
    branches = L.Concat(L.Sequential(), narrow, L.MaxPool2D(2, stride=1, padding="same"))
    return L.Sequential(
        first,
        L.Conv2D(8, 8, (3, 2), stride=(2, 1), padding=((1, 1), (1, 0)), groups=4, dilation=(1, 2)),
        L.LayerNorm(8),
        L.ConvTranspose2D(8, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        L.ConvTranspose2D(6, 6, 3, padding=((1, 0), (2, 0))),
        branches,
        L.Gate(L.Sequential(L.GlobalAvgPool2D(), L.Linear(14, 14), L.Hardsigmoid())),
        L.SqueezeExcite(14, 4),
        (L.BatchNormReLU(14), L.AvgPool2D(3, stride=2, padding=1, ceil_mode=True)),
        L.AvgPool2D(2, stride=1, padding="same"),
        L.Upsample((2, 1), mode="bilinear"),
        L.Upsample(2),
        L.AdaptiveAvgPool2D((3, 4)),
        L.Residual(L.Sequential(L.StochasticDepth(0.2), L.Dropout2D(0.1), L.ELU(0.5)), relu=True),
        L.Flatten(),
        (L.BatchNorm(168), L.LeakyReLU(0.2), L.Dropout(0.1)),
        L.LayerNorm(168),
        L.Residual(L.Sequential(L.Scale(0.5), L.Tanh())),
        L.Linear(168, 12),
        (L.GELU("tanh"), L.LayerNorm(12), L.ReLU6()),
        L.Sequential(pop=L.Linear(12, 7), end=L.Sigmoid()),
        L.Softmax(),
    )


SHAPES = {"lenet5": (28, 28, 1), "mnist_cnn": (8, 8, 1), "mlp": (6, 6, 2)} | dict.fromkeys(
    ["resnet18", "mobilenet_v2"], (8, 8, 3)
)


def made(name: str) -> tuple[L.Layer, Config]:
    """A net with random weights and statistics, and its settings."""
    shape = SHAPES.get(name, (16, 16, 3))
    if name == "own":
        model = own_net()
        settings = described(model, shape, 7)
    else:
        settings = ModelConfig(name=name, input_shape=shape, num_classes=7)
        model = build(settings.name, shape, 7)
    mean = [0.5] * shape[2]
    config = Config(model=settings).updated({"data": {"mean": mean, "std": mean, "classes": list("abcdefg")}})
    model.initialize(seed=1)
    rng = np.random.default_rng(2)
    state = model.state_dict()
    for key, array in state.items():
        if array.ndim == 1:  # scales, shifts and statistics, which are all ones and zeros
            state[key] = rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
    model.load_state_dict(state)
    return model.eval(), config


def saved(model: L.Layer, config: Config, path: Path) -> Mapping[str, Any]:
    state = model.state_dict()
    parameters = {name: state[name] for name in model.parameters()}
    buffers = {name: state[name] for name in model.buffers()}
    save_checkpoint(path, Checkpoint(parameters, buffers, progress=PROGRESS, config=config.to_toml()))
    return state


def executed(path: Path) -> SimpleNamespace:
    names: dict[str, Any] = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    return SimpleNamespace(**names)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


SMALL = ["lenet5", "vgg_small", "resnet18", "mobilenet_v2", "speedrun94", "own"]


@pytest.mark.parametrize("name", SMALL)
def test_there_and_back_no_bit_changes(name: str) -> None:
    model, config = made(name)
    state = saved(model, config, Path("net.h5"))
    for suffix in ("safetensors", "py"):
        assert main(["export", "--checkpoint", "net.h5", "--out", f"net.{suffix}"]) == 0
    there = executed(Path("net.py"))
    net = there.load("net.safetensors")
    x = np.random.default_rng(3).normal(size=(2, *config.model.input_shape)).astype(np.float32)
    with torch.no_grad():
        theirs = net.double()(torch.from_numpy(x.transpose(0, 3, 1, 2)).double()).numpy()
    exact = model.initialize(dtype="float64", keep=True).eval().forward(x.astype(np.float64))
    assert abs(theirs - exact).max() <= 1e-6 * abs(exact).max()
    pixels = np.random.default_rng(4).integers(0, 256, (2, *config.model.input_shape), dtype=np.uint8)
    wanted = (pixels.transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(there.prepare(pixels).numpy(), wanted, atol=1e-6)
    there.save(net.float(), "back.safetensors")
    h, w, c = config.model.input_shape
    words = ["--input-shape", f"{h}x{w}x{c}", "--classes", *"abcdefg"]
    words += ["--mean", ",".join(["0.5"] * c), "--std", ",".join(["0.5"] * c)]
    if name == "own":
        Path("net.toml").write_text(config.to_toml(), encoding="utf-8")
        words += ["--spec", "net.toml"]
    else:
        words += ["--model", config.model.name]
    for file, flags in (("back", words), ("net", [])):
        assert main(["import", f"{file}.safetensors", "--out", f"{file}_in.h5", *flags]) == 0
        back = load_checkpoint(f"{file}_in.h5", expected_tensors)
        found = {**back.parameters, **back.buffers}
        assert found.keys() == state.keys()
        for key, array in state.items():
            assert np.array_equal(found[key], array), key
        read = Config.from_toml(back.config)
        assert read.model == config.model
        assert (read.data.mean, read.data.classes) == (config.data.mean, config.data.classes)


SLOW = ("resnet34", "resnet50", "densenet121", "speedrun95", "resnet9")  # of layers that others have


@pytest.mark.parametrize("name", [name for name in MODELS if name not in (*SMALL, *SLOW)])
def test_every_model_has_a_module_that_answers_as_it_does(name: str) -> None:
    from gpucnn.exchange.torch_module import module_text
    from gpucnn.exchange.torch_names import to_torch

    model, config = made(name)
    shape = config.model.input_shape
    text = module_text(model, shape, name, mean=config.data.mean, std=config.data.std)
    Path("net.py").write_text(text, encoding="utf-8")
    there = executed(Path("net.py"))
    net = there.net()
    state = {key: torch.from_numpy(array) for key, array in to_torch(model, shape).items()}
    if hasattr(there, "NAMES"):
        state = there.renamed(state, {theirs: ours for ours, theirs in there.NAMES.items()})
    net.load_state_dict(state)
    x = np.random.default_rng(3).normal(size=(1, *shape)).astype(np.float32)
    with torch.no_grad():
        theirs = net.double().eval()(torch.from_numpy(x.transpose(0, 3, 1, 2)).double()).numpy()
    exact = model.initialize(dtype="float64", keep=True).eval().forward(x.astype(np.float64))
    assert abs(theirs - exact).max() <= 1e-6 * abs(exact).max()


def test_every_layer_has_a_form() -> None:
    from gpucnn.exchange.torch_module import FORMS
    from gpucnn.models.spec import LAYERS

    built_in = {kind for kind in LAYERS.values() if kind.__module__.startswith("gpucnn.")}
    assert built_in - FORMS.keys() == {L.Sequential, L.Residual, L.Concat, L.Gate, L.SqueezeExcite}


def test_modules_are_formatted() -> None:
    pytest.importorskip("ruff")
    from gpucnn.exchange.torch_module import module_text

    for name in ("own", *MODELS):
        model = own_net() if name == "own" else build(name, (16, 16, 3), 7)
        text = module_text(model, (16, 16, 3), name, mean=[0.1] * 3, std=[1 / 3] * 3, classes=["a"])
        assert max(map(len, text.splitlines())) <= 100
        Path(f"{name}.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "100", "--check", "."]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_a_step_in_float64_is_that_of_pytorch(name: str) -> None:
    from gpucnn.exchange.torch_module import module_text
    from gpucnn.exchange.torch_names import places, to_torch

    model, config = made(name)
    shape = config.model.input_shape
    Path("net.py").write_text(module_text(model, shape, name, mean=[0], std=[1]), encoding="utf-8")
    net = executed(Path("net.py")).net().double()
    net.load_state_dict({key: torch.from_numpy(array).double() for key, array in to_torch(model, shape).items()})
    rng = np.random.default_rng(3)
    x, labels = rng.normal(size=(8, *shape)), rng.integers(0, 7, 8)
    model.initialize(dtype="float64", keep=True).train()
    loss, grad = loss_and_gradient(model.forward(x), labels)
    model.backward(grad)
    before = {key: p.data.copy() for key, p in model.parameters().items()}
    after = {key: before[key] - 0.1 * p.grad for key, p in model.parameters().items()}
    theirs = torch.nn.functional.cross_entropy(
        net.train()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())), torch.from_numpy(labels)
    )
    theirs.backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert abs(theirs.item() - loss) <= 1e-10 * abs(loss)
    moved = {**net.state_dict()}
    for key, spot in places(model, shape).items():
        ours = after[key] if key in after else model.buffers()[key].data
        found = spot.inward(moved[spot.name].detach().numpy(), ours.shape)
        assert abs(found - ours).max() <= 1e-10 * abs(ours).max(), key


def loss_and_gradient(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean cross-entropy written out, and its gradient."""
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.log(p[rows, labels]).mean()
    p[rows, labels] -= 1
    return float(loss), p / len(labels)
