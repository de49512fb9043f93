"""Models by name: shapes, sizes, costs, and errors that help."""

import numpy as np
import pytest

from gpucnn import models
from gpucnn.errors import ShapeError, UsageError
from gpucnn.summary import rows, summary

MNIST, CIFAR, DIGITS = (28, 28, 1), (32, 32, 3), (8, 8, 1)

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
]


@pytest.mark.parametrize(("name", "shape", "size"), SIZES)
def test_models_have_the_parameters_that_their_layers_add_up_to(name, shape, size) -> None:
    model = models.build(name, shape)
    assert sum(p.size for p in model.parameters().values()) == size
    assert model.output_shape(shape) == (10,)


@pytest.mark.parametrize(("name", "shape"), [(n, s) for n, s, _ in SIZES if n != "resnet18"])
def test_one_step_moves_every_parameter(name, shape) -> None:
    model = models.build(name, shape).initialize(seed=3)
    model.skip_input_grad()
    x = np.random.default_rng(0).standard_normal((4, *shape), dtype=np.float32)
    y = model.train()(x)
    assert y.shape == (4, 10)
    assert y.dtype == np.float32
    assert np.isfinite(y).all()
    assert model.backward(np.ones_like(y) / 4 - np.eye(4, 10, dtype=np.float32)) is None
    still = [n for n, p in model.parameters().items() if not p.grad.any()]
    # batch norm takes the mean away again, so a bias in front of it would have gradient 0; we have none
    assert still == []


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
