"""Models by name: shapes, sizes, costs, and errors that help."""

from pathlib import Path

import numpy as np
import pytest

from gpucnn import models
from gpucnn.errors import ShapeError, UsageError
from gpucnn.models.summary import rows, summary

MNIST, CIFAR, DIGITS = (28, 28, 1), (32, 32, 3), (8, 8, 1)

# whitening with its bias, the groups' convolutions, the head
SPEEDRUN94 = 13 * 24 + 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256) + 2560
LARGE = {"resnet18", "resnet34", "resnet50", "resnet9", "densenet121", "mobilenet_v2"}

# parameters counted by hand from the layers' definitions
SIZES = [
    ("lenet5", MNIST, 156 + 2416 + 400 * 120 + 120 + 120 * 84 + 84 + 84 * 10 + 10),
    ("lenet5", CIFAR, 456 + 2416 + 400 * 120 + 120 + 120 * 84 + 84 + 84 * 10 + 10),
    ("mnist_cnn", MNIST, 288 + 64 + 9216 + 64 + 18432 + 128 + 3136 * 128 + 128 + 1290),
    ("mnist_cnn", DIGITS, 288 + 64 + 9216 + 64 + 18432 + 128 + 256 * 128 + 128 + 1290),
    ("vgg_small", CIFAR, 9 * (3 * 64 + 64 * 64 + 64 * 128 + 128**2 + 128 * 256 + 256**2) + 1792 + 40970),
    ("mlp", MNIST, 784 * 256 + 256 + 256 * 256 + 256 + 2570),
    # the paper's 0.27 M, and the 11.17 M of the usual CIFAR form
    ("resnet20", CIFAR, 272_474),
    ("resnet18", CIFAR, 11_173_962),
    ("resnet9", CIFAR, 6_573_120),
    ("resnet34", CIFAR, 21_282_122),
    ("resnet50", CIFAR, 23_520_842),
    ("densenet", DIGITS, 176_122 - 2 * 9 * 24),  # the paper's 0.18 M, with one channel for three
    ("densenet121", CIFAR, 7_978_856 - 990 * 1025 - (49 - 9) * 3 * 64),
    ("wide_resnet", CIFAR, 2_748_890),
    ("mobilenet_v2", CIFAR, 3_504_872 - 1281 * 990),  # the published 3.5 M of 1000 classes, in ten
    ("speedrun94", CIFAR, SPEEDRUN94 + 2 * 2 * (64 + 256 + 256)),  # batch norm's scales, which stay 1, included
]


@pytest.mark.parametrize(("name", "shape", "size"), SIZES)
def test_models_have_the_parameters_that_their_layers_add_up_to(name, shape, size) -> None:
    model = models.build(name, shape)
    assert sum(p.size for p in model.parameters().values()) == size
    assert model.output_shape(shape) == (10,)


@pytest.mark.parametrize(("name", "shape"), [(n, s) for n, s, _ in SIZES if n not in LARGE])
def test_one_step_moves_every_parameter(name, shape) -> None:
    model = models.build(name, shape).initialize(seed=3)
    model.skip_input_grad()
    x = np.random.default_rng(0).standard_normal((4, *shape), dtype=np.float32)
    y = model.train()(x)
    assert y.shape == (4, 10)
    assert y.dtype == np.float32
    assert np.isfinite(y).all()
    assert model.backward(np.ones_like(y) / 4 - np.eye(4, 10, dtype=np.float32)) is None
    still = [n for n, p in model.parameters().items() if not p.frozen and not p.grad.any()]
    # batch norm takes the mean away again, so a bias in front of it would have gradient 0; we have none
    assert still == []


# those of PyTorch's models, which are the papers' 11.69, 21.80, 25.56 and 7.98 million
IMAGENET = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "densenet121": 7_978_856}


@pytest.mark.parametrize("name", IMAGENET)
def test_large_images_get_the_form_for_imagenet(name) -> None:
    model = models.build(name, (224, 224, 3), 1000)
    assert sum(p.size for p in model.parameters().values()) == IMAGENET[name]
    last = {row.name: row.shape for row in rows(model, (224, 224, 3))}
    assert next(shape for key, shape in last.items() if key.startswith(("stage1", "block1")))[:2] == (56, 56)
    assert models.build(name, (96, 95, 3)).children()["stem"].output_shape((96, 95, 3))[:2] == (96, 95)


OPTIONS = [
    ("densenet", {"depth": 100}, 769_162),  # the paper's 0.8 M
    ("wide_resnet", {"depth": 28, "widen": 10}, 36_479_194),  # the paper's 36.5 M
    ("wide_resnet", {"depth": 16, "widen": 8}, 10_961_370),  # 11.0 M
    ("speedrun95", {}, 13 * 24 + 9 * (24 * 128 + 128**2 + 128 * 384 + 3 * 384**2) + 3840 + 4 * (128 + 2 * 384)),
    (
        "speedrun96",
        {},
        13 * 24 + 9 * (24 * 128 + 2 * 128**2 + 128 * 384 + 2 * 384**2 + 384 * 512 + 2 * 512**2) + 5120
        + 6 * (128 + 384 + 512),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "size"), OPTIONS)
def test_options_and_wider_nets_have_the_parameters_of_their_papers(name, options, size) -> None:
    model = models.build(name, CIFAR, **options)
    assert sum(p.size for p in model.parameters().values()) == size


@pytest.mark.parametrize(("width", "size"), [(1.0, 3_504_872), (0.5, 1_968_680), (1.4, 6_108_776)])
def test_mobilenet_has_the_parameters_and_shapes_of_its_paper(width, size) -> None:
    image = (224, 224, 3)
    model = models.build("mobilenet_v2", image, 1000, width=width)
    assert sum(p.size for p in model.parameters().values()) == size
    if width != 1:
        return
    stages = [child for name, child in model.children().items() if name.startswith(("stem", "stage", "head"))]
    shapes, shape = [], image
    for stage in stages:
        shape = stage.output_shape(shape)
        shapes.append((shape[0], shape[2]))
    assert shapes == [
        (112, 32), (112, 16), (56, 24), (28, 32), (14, 64), (14, 96), (7, 160), (7, 320), (7, 1280),
    ]  # fmt: skip
    products = sum(row.flops for row in rows(model, image) if row.kind in ("Conv2D", "Linear"))
    assert products / 2 == pytest.approx(300e6, rel=0.01)  # the paper's 300 M multiply-adds
    small = models.build("mobilenet_v2", CIFAR)
    assert small.children()["stem"].output_shape(CIFAR) == (32, 32, 32)
    assert next(row.shape for row in rows(small, CIFAR) if row.name.startswith("head")) == (4, 4, 1280)


@pytest.mark.parametrize("width", [0, -1, 9, float("nan")])
def test_a_mobilenet_of_no_width_is_refused(width) -> None:
    with pytest.raises(UsageError, match="width"):
        models.build("mobilenet_v2", CIFAR, width=width)


def test_the_speedrun_net_costs_what_its_paper_says() -> None:
    learned = SPEEDRUN94 + 2 * (64 + 256 + 256)  # with batch norm's shifts
    assert learned == pytest.approx(1.97e6, rel=2e-3)
    model = models.build("speedrun94", CIFAR)
    products = sum(row.flops for row in rows(model, CIFAR) if row.kind in ("Conv2D", "Whitening", "Linear"))
    assert products == pytest.approx(236e6, rel=2e-3)
    assert model.parameters()["features.whitening.weight"].shape == (24, 2, 2, 3)
    assert [row.shape for row in rows(model, CIFAR) if row.kind == "MaxPool2D"] == [
        (15, 15, 64), (7, 7, 256), (3, 3, 256), (1, 1, 256),
    ]  # fmt: skip


def test_a_group_starts_as_the_identity_and_batch_norm_without_a_scale() -> None:
    model = models.build("speedrun96", CIFAR).initialize()
    for name, parameter in model.parameters().items():
        if name.endswith("scale"):
            assert parameter.frozen
            assert (parameter.data == 1).all()
    w = model.parameters()["features.group1.4.body.0.weight"].data
    np.testing.assert_array_equal(w[:, 1, 1], np.eye(128))
    head = models.build("speedrun94", CIFAR, unit_head=True).initialize()
    assert head.parameters()["head.weight"].data.std() == pytest.approx(1, rel=0.02)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("speedrun94", (16, 17, 3), {}),
        ("speedrun96", (16, 16, 1), {"unit_head": True}),
        ("wide_resnet", (8, 8, 3), {"depth": 10, "widen": 2}),
        ("resnet9", (8, 8, 3), {}),
        ("densenet", (8, 8, 3), {"depth": 16}),
        ("mobilenet_v2", (16, 16, 3), {"width": 0.25, "dropout": 0.0}),
    ],
)
def test_forward_and_backward_are_pytorchs(name, shape, options) -> None:
    import torch

    from gpucnn.bench.pytorch import to_torch

    ours = models.build(name, shape, **options).initialize(5, dtype="float64")
    for parameter in ours.parameters().values():
        parameter.data[...] = parameter.data.astype(np.float32)  # what to_torch hands on
    theirs = to_torch(ours).double()
    x = np.random.default_rng(1).standard_normal((3, *shape))
    t = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    y = theirs(t)
    v = np.random.default_rng(2).standard_normal(y.shape)
    y.backward(torch.from_numpy(v))
    np.testing.assert_allclose(ours(x), y.detach(), rtol=1e-9, atol=1e-10)
    dx = ours.backward(v)
    scale = float(t.grad.abs().max())
    np.testing.assert_allclose(dx, t.grad.numpy().transpose(0, 2, 3, 1), atol=1e-9 * scale)
    largest = max(abs(parameter.grad).max() for parameter in ours.parameters().values())
    for parameter, other in zip(ours.parameters().values(), theirs.parameters(), strict=True):
        if not parameter.frozen:
            grad = other.grad.numpy()
            grad = grad.transpose(0, 2, 3, 1) if grad.ndim == 4 else grad
            np.testing.assert_allclose(parameter.grad, grad, atol=1e-9 * max(abs(grad).max(), 1e-3 * largest))


@pytest.mark.torch
@pytest.mark.parametrize("name", ["mnist_cnn", "resnet20", "speedrun94"])
def test_a_trained_model_evaluates_as_in_pytorch(name) -> None:
    """With running statistics that are far from their first values, 0 and 1."""
    import torch

    from gpucnn.bench.pytorch import to_torch

    shape = MNIST if name == "mnist_cnn" else (16, 16, 3)
    ours = models.build(name, shape).initialize(5)
    rng = np.random.default_rng(1)
    for label, buffer in ours.buffers().items():
        low, high = (0.2, 3.0) if label.endswith("var") else (-1.0, 1.0)
        buffer.data[...] = rng.uniform(low, high, buffer.shape)
    theirs = to_torch(ours).eval()
    assert any(label.endswith("running_var") for label in ours.buffers())
    x = rng.standard_normal((3, *shape)).astype(np.float32)
    with torch.inference_mode():
        wanted = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    found = ours.eval()(x)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * float(wanted.abs().max()))


def test_the_page_of_models_lists_them_all_as_they_are() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    listed = {}
    for line in page.splitlines():
        if line.startswith("| `"):
            name, images, parameters, mflop = (cell.strip(" `") for cell in line.split("|")[1:5])
            shape = tuple(map(int, images.split("x")))
            model = models.build(name, shape)
            assert f"{sum(p.size for p in model.parameters().values()):,}" == parameters
            assert f"{model.flops(shape) / 1e6:.1f}" == mflop
            listed[name] = shape
    assert list(listed) == list(models.MODELS)


def test_summary_adds_up() -> None:
    model = models.build("resnet20", CIFAR)
    listed = list(rows(model, CIFAR))
    assert sum(row.flops for row in listed) == model.flops(CIFAR)
    assert sum(row.parameters for row in listed) == 272_474
    assert listed[-1].shape == (10,)
    text = summary(model, CIFAR)
    assert "272,474" in text
    assert max(map(len, text.splitlines())) <= 80


def test_names_that_are_not_known_get_the_closest_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'resnet20'"):
        models.build("resnet2", CIFAR)
    with pytest.raises(UsageError, match="unknown option 'dropot' of model 'mnist_cnn': did you mean 'dropout'"):
        models.build("mnist_cnn", MNIST, dropot=0.1)


@pytest.mark.parametrize("options", [{"width": "wide"}, {"depth": 10**9}, {"width": 0}, {"depth": True}])
def test_options_that_make_no_model_are_refused_at_once(options) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        models.build("mlp", MNIST, **options)


def test_a_model_that_does_not_fit_says_which_layer() -> None:
    with pytest.raises(ShapeError, match=r"layer 3: a kernel of \(5, 5\) does not fit"):
        models.build("lenet5", (8, 8, 1))
