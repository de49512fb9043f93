"""From images to class names: normalisation as a Loader does it, probabilities, the most probable classes."""

import numpy as np
import pytest

from gpucnn.data import Dataset, Loader
from gpucnn.errors import ShapeError
from gpucnn.inference.predict import class_names, normalise, probabilities, top_k

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_normalised_to_the_bits_of_a_loader(channels: int, backend) -> None:
    images = RNG.integers(0, 256, (7, 5, 4, channels)).astype(np.uint8)
    mean, std = (0.1, 0.5, 0.9)[:channels], (0.3, 0.7, 0.2)[:channels]
    data = Dataset("images", images, np.zeros(7, np.uint8), ("a",))
    ((wanted, _),) = Loader(data, 7, backend=backend, mean=mean, std=std).epoch(0)
    found = normalise(images, mean, std, backend)
    assert type(found) is type(wanted)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(backend.to_host(found), backend.to_host(wanted))


@pytest.mark.parametrize(("mean", "std"), [((), ()), ((0.5,), (0.5,)), ((0.5, 0.5, 0.5), (0.5,))])
def test_mean_and_std_are_a_number_for_each_channel(mean, std, backend) -> None:
    with pytest.raises(ShapeError, match="for 3 channels"):
        normalise(np.zeros((1, 2, 2, 3), np.uint8), mean, std, backend)


def test_classes_without_a_name_have_a_number() -> None:
    assert class_names(("cat", "dog"), 2) == ("cat", "dog")
    assert class_names(("cat", "dog"), 3) == class_names((), 3) == ("0", "1", "2")


def test_probabilities_are_the_softmax_on_the_host(backend) -> None:
    logits = RNG.standard_normal((3, 5)).astype(np.float32)
    found = probabilities(backend.to_device(logits), backend)
    assert type(found) is np.ndarray
    exponentials = np.exp(logits.astype(np.float64))
    np.testing.assert_allclose(found, exponentials / exponentials.sum(axis=1, keepdims=True), rtol=1e-5)


def test_the_most_probable_classes_come_first_and_ties_in_order() -> None:
    row = np.array([0.2, 0.1, 0.5, 0.2])
    assert top_k(row, "abcd", 3) == [("c", 0.5), ("a", 0.2), ("d", 0.2)]
    assert len(top_k(row, "abcd", 9)) == 4
