"""``gpucnn.load``'s classifier: arrays, files and folders in, classes out; its pictures in notebooks."""

import re
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

import gpucnn
from gpucnn import Classifier, Dataset, models
from gpucnn.errors import DataError
from gpucnn.inference.predictions import Prediction, Predictions, png
from gpucnn.layers.softmax import softmax
from gpucnn.training.history import History

COLOUR, GREY = (6, 8, 3), (6, 8, 1)
CLASSES = ("<cat>", "dog\x1b", "ant")
STATISTICS = {1: {"mean": (0.4,), "std": (0.2,)}, 3: {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.1)}}


def classifier(shape: tuple[int, ...] = COLOUR) -> Classifier:
    model = models.build("mlp", shape, 3, width=8).initialize(2)
    return Classifier(model, classes=CLASSES, input_shape=shape, **STATISTICS[shape[2]])


def pixels(count: int, shape: tuple[int, ...] = COLOUR) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), np.uint8)


def test_probabilities_are_the_softmax_of_normalised_images() -> None:
    mine, images = classifier(), pixels(300)  # more than a batch
    x = (images / 255.0 - mine.mean) / mine.std
    wanted = softmax(mine.model(x.astype(np.float32)))
    found = mine.predict(images)
    np.testing.assert_allclose(found.probabilities, wanted, rtol=1e-4, atol=1e-6)
    assert np.array_equal(found.labels, wanted.argmax(axis=1))
    assert found.names == [CLASSES[label] for label in found.labels]
    labels = np.arange(300, dtype=np.uint8) % 3
    data = Dataset("mine", images, labels, ("a", "b", "c"))
    assert mine.evaluate(data).accuracy == (mine.predict(data) == labels).mean()
    both = (mine.probabilities(images[0]), mine.probabilities(images[0, :, ::-1]))
    logits = np.mean([np.log(p) for p in both], axis=0)  # up to a constant
    np.testing.assert_allclose(mine.probabilities(images[0], tta="flip"), softmax(logits[None])[0], rtol=1e-4)
    assert not np.array_equal(mine.probabilities(images, tta="flip"), found.probabilities)


def test_one_image_gives_one_answer_and_grey_ones_may_lack_the_channel() -> None:
    mine, images = classifier(GREY), pixels(4, GREY)
    many = mine.predict(images)
    for given in (images[1], images[1, :, :, 0]):
        one = mine.predict(given)
        assert isinstance(one, Prediction)
        assert (one.label, one.name, one.probability) == (many[1].label, many[1].name, many[1].probability)
    assert np.array_equal(mine.predict(images[..., 0]).probabilities, many.probabilities)
    assert len(mine.predict(images[:0])) == 0
    assert [one.label for one in many[1:3]] == many.labels[1:3].tolist()
    assert np.array_equal(mine.predict(255 - images, invert=True).probabilities, many.probabilities)


def test_files_are_cut_and_resized_and_a_folder_is_taken_by_name(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    mine, (first, second) = classifier(), pixels(2)
    image.fromarray(second).save(tmp_path / "b.png")
    image.fromarray(first).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("no image")
    wanted = mine.predict(np.stack([first, second]))
    for given in (tmp_path, [tmp_path / "a.png", str(tmp_path / "b.png")]):
        found = mine.predict(given)
        assert np.array_equal(found.probabilities, wanted.probabilities)
    assert found.sources == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert mine.predict(image.fromarray(first)).label == wanted.labels[0]
    image.fromarray(first).resize((32, 24)).save(tmp_path / "large.png")
    large = mine.predict(tmp_path / "large.png")
    assert large.image.shape == COLOUR
    assert "resized from 32 x 24 to 8 x 6" in repr(large)


def test_a_notebook_shows_the_image_that_the_net_saw_and_no_markup_from_outside() -> None:
    image = pytest.importorskip("PIL.Image")
    for shape in (COLOUR, GREY):
        mine, one = classifier(shape), pixels(1, shape)[0]
        page = mine.predict(one)._repr_html_()
        (data,) = re.findall(r"data:image/png;base64,([^\"]+)\"", page)
        assert np.array_equal(np.asarray(image.open(BytesIO(b64decode(data)))).reshape(shape), one)
        assert "&lt;cat&gt;" in page
        assert "<cat>" not in page
        assert "\x1b" not in page + repr(mine.predict(one))
    many = Predictions(np.full((20, 3), 0.3, np.float32), CLASSES, pixels(20), ["<b>"] * 20)
    assert many._repr_html_().count("<img") == 12
    assert "... 20 in all" in many._repr_html_()
    assert "<b>" not in many._repr_html_()
    assert np.asarray(image.open(BytesIO(png(pixels(1, (6, 8, 5))[0])))).shape == (6, 8, 3)


def test_the_pretrained_net_explains_a_digit_and_stays_as_it_was(tmp_path: Path) -> None:
    mine = gpucnn.load("mnist_lenet", backend="reference")
    image = np.zeros((28, 28), np.uint8)
    image[5:23, 13:16] = 255
    before = mine.model.state_dict()
    found = mine.explain(image, "7", steps=2, lr=0.01)
    assert mine.predict(image).name == "1"
    assert found.steps[0].loss.arrays["t"].argmax() == 7
    assert found.steps[1].value < found.steps[0].value
    assert all(np.array_equal(mine.model.state_dict()[name], array) for name, array in before.items())
    found.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == found.page
    assert "</iframe>" in found._repr_html_()
    assert repr(mine) == "lenet5: images 28 x 28 x 1 in 10 classes, on reference"
    assert "<table>" in mine._repr_html_()


def test_float_images_stay_on_their_scale() -> None:
    images = pixels(9, GREY)
    model = models.build("mlp", GREY, 3, width=8).initialize(2)
    floats = Classifier(model, input_shape=GREY, pixels="float32", mean=(102.0,), std=(51.0,))
    found = floats.predict(images.astype(np.float64)[..., 0])
    np.testing.assert_allclose(found.probabilities, classifier(GREY).probabilities(images), rtol=1e-3)
    assert found.names == [str(label) for label in found.labels]  # without names, numbers
    assert "<img" in found[0]._repr_html_()
    data = Dataset.from_arrays(images.astype(np.float32), [0, 1, 2] * 3)
    assert floats.evaluate(data).accuracy == (found == data.labels).mean()
    with pytest.raises(DataError, match="images are uint8, the model was trained on float32"):
        floats.evaluate(Dataset.from_arrays(images, [0, 1, 2] * 3))


def test_curves_of_a_history() -> None:
    rows = [
        {"epoch": i, "train_loss": 2.0 - i, "test_loss": float("nan"), "train_accuracy": i / 4, "test_accuracy": 0.5}
        for i in range(1, 4)
    ]
    picture = History(rows)._repr_html_()
    points = re.findall(r'points="([^"]+)"', picture)
    assert len(points) == 3  # none of NaN
    assert points[0] == "0.0,26.0 160.0,82.0 320.0,138.0"  # falls: SVG counts from the top
    assert "nan" not in picture
    assert "<circle" in History(rows[:1]).svg()
    assert History().column("epoch") == []
    assert "no epoch" in History()._repr_html_()
