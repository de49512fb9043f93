"""What a slip in the use of the public names gives: one line of the package's own, before anything has happened."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import gpucnn
from gpucnn import (
    REFERENCE,
    Augmentation,
    Classifier,
    Dataset,
    GpucnnError,
    Loader,
    Trainer,
    TrainerOptions,
    get_backend,
    layers,
    load_dataset,
    losses,
    models,
    optim,
    schedules,
    summary,
)
from gpucnn.data import split_validation
from gpucnn.errors import UsageError
from gpucnn.optim.averages import EMA, Lookahead
from gpucnn.runs.classifier import Explanation
from gpucnn.settings import checked

SHAPE = (8, 8, 1)
IMAGES, LABELS, NAMES = (
    np.arange(12 * 64, dtype=np.uint8).reshape(12, *SHAPE),
    np.arange(12, dtype=np.uint8) % 3,
    ("a", "b", "c"),
)
DATA = Dataset("mine", IMAGES, LABELS, NAMES)
EMPTY = Path(__file__).parent / "kernels"  # of images
STATISTICS = {"mean": (0.5,), "std": (0.2,)}


def net() -> layers.Layer:
    return models.build("mlp", SHAPE, 3, width=4)


def trainer(**words: object) -> Trainer:
    return Trainer(**{"model": net(), "optimizer": optim.SGD(lr=0.1), **words})


def classifier(**words: object) -> Classifier:
    return Classifier(net().initialize(), classes=NAMES, input_shape=SHAPE, **STATISTICS, **words)


SLIPS: dict[str, tuple[Callable[[], object], str]] = {
    "model.save": (lambda: net().save("x.h5"), "writes no file"),
    "model.save of a path": (lambda: net().initialize().save(Path("x.h5")), "writes no file"),
    "load_state_dict of a path": (lambda: net().initialize().load_state_dict("x.h5"), "give name -> array"),
    "trainer.save": (lambda: trainer().save("x.h5"), "has seen no images yet: call train or fit first"),
    "trainer.predict": (lambda: trainer().predict(IMAGES), "has seen no images yet"),
    "trainer.save of nothing": (lambda: trainer().save(5), "give a string or a path"),
    "backend": (lambda: trainer(backend="cuda"), "give one of auto, cpu, gpu"),
    "optimizer's name": (lambda: trainer(optimizer="adamx"), "did you mean 'adam'?"),
    "no rate": (lambda: trainer(optimizer="sgd"), "has no default rate: give lr, as in lr=0.05"),
    "two rates": (lambda: trainer(lr=0.2), "beside an optimizer with lr=0.1"),
    "a rate as text": (lambda: trainer(optimizer="sgd", lr="0.2"), "give a number or None"),
    "schedule's name": (lambda: trainer(schedule="cosin"), "did you mean 'cosine'?"),
    "a schedule that needs more": (lambda: trainer(schedule="step"), "schedules.step_decay(0.1, milestones)"),
    "policy's name": (lambda: trainer(policy="half"), "policy = 'half'"),
    "patience alone": (
        lambda: trainer(options=TrainerOptions(patience=2)).train(DATA, epochs=1),
        "compares test accuracies: give a test set",
    ),
    "arrays to train": (lambda: trainer().train(IMAGES, LABELS, epochs=1), "give a Dataset"),
    "load of nothing": (lambda: gpucnn.load(None), "give a string or a path"),
    "load of a place without": (lambda: gpucnn.load("nowhere.h5"), "nowhere.h5"),
    "load on no device": (lambda: gpucnn.load("nowhere.h5", backend="cuda"), "give one of auto, cpu, gpu"),
    "predict other sizes": (lambda: classifier().predict(IMAGES[:, :4]), "an array of shape (12, 4, 8, 1) for a model"),
    "predict floats": (lambda: classifier().predict(IMAGES / 255), "(255 * images).round().astype('uint8')"),
    "predict bytes": (lambda: classifier(pixels="float32").predict(IMAGES), "was trained on float32: give images.as"),
    "predict a file by floats": (
        lambda: classifier(pixels="float32").predict(Path(__file__).parents[1] / "docs/images/explain.png"),
        "on a scale that files do not have: give arrays",
    ),
    "invert floats": (lambda: classifier(pixels="float32").predict(IMAGES / 255, invert=True), "invert is for bytes"),
    "a classifier without classes": (
        lambda: Classifier(layers.ReLU(), input_shape=SHAPE, **STATISTICS),
        "the model gives (8, 8, 1) for an image, no number per class",
    ),
    "predict nothing": (lambda: classifier().predict(None), "give an array, a path or a list of paths"),
    "predict no file": (lambda: classifier().predict("nowhere.png"), "no such file"),
    "predict an empty folder": (lambda: classifier().predict(EMPTY), "a folder without images"),
    "predict with views": (lambda: classifier().predict(IMAGES, tta="flop"), "did you mean 'flip'?"),
    "evaluate arrays": (lambda: classifier().evaluate(IMAGES), "give a Dataset"),
    "evaluate other sizes": (lambda: classifier().evaluate(load_dataset("synthetic")[1]), "the model takes (8, 8, 1)"),
    "explain many": (lambda: classifier().explain(IMAGES), "explain takes one image, not 12"),
    "explain a class": (lambda: classifier().explain(IMAGES[0], "d"), "known are a, b, c"),
    "explain a label": (lambda: classifier().explain(IMAGES[0], 3), "labels go from 0 to 2"),
    "explain to no place": (lambda: Explanation([], "").save("nowhere/x.html"), "cannot write nowhere/x.html"),
    "no backend": (lambda: trainer(backend=None), "give a Backend"),
    "backend of a loader": (lambda: Loader(DATA, 2, backend="gpu", **STATISTICS), "give a Backend"),
    "backend of a model": (lambda: net().initialize(0, "cpu"), "give a Backend"),
    "a class for a model": (lambda: trainer(model=layers.ReLU), "give a Layer"),
    "a name for a model": (lambda: trainer(model="mlp"), "give a Layer"),
    "a class for an optimizer": (lambda: trainer(optimizer=optim.SGD), "give an Optimizer"),
    "swapped": (lambda: Trainer(optim.SGD(lr=0.1), net()), "give a Layer"),
    "batch_size": (lambda: trainer(batch_size="64"), "give an integer"),
    "a float batch_size": (lambda: trainer(batch_size=64.0), "give an integer"),
    "True": (lambda: trainer(batch_size=True), "give an integer"),
    "seed": (lambda: trainer(seed=None), "give an integer"),
    "schedule": (lambda: trainer(schedule=0.1), "give a function or a string or None"),
    "loss": (lambda: trainer(loss=3), "give a function or a string"),
    "loss's name": (lambda: trainer(loss="softmax_crossentropy"), "did you mean 'softmax_cross_entropy'?"),
    "one average": (lambda: trainer(averages=EMA(0.9)), "give a sequence"),
    "augmentation": (lambda: trainer(augmentation={"flip": True}), "give an Augmentation"),
    "options": (lambda: trainer(options={"patience": 3}), "TrainerOptions"),
    "unknown": (lambda: trainer(batchsize=3), "did you mean 'batch_size'?"),
    "reduction": (lambda: TrainerOptions(reduction="avg"), "known are mean, sum"),
    "loss options": (lambda: trainer(options=TrainerOptions(loss_options={"smooth": 1})), "'smooth'"),
    "patience": (lambda: TrainerOptions(patience=-1), "give a number >= 0"),
    "log_interval": (lambda: TrainerOptions(log_interval=0), "give a number >= 1"),
    "mean": (lambda: TrainerOptions(mean=0.5), "give a sequence"),
    "unknown option": (lambda: TrainerOptions(patienc=3), "did you mean 'patience'?"),
    "arrays to fit": (lambda: trainer().fit(IMAGES, LABELS, epochs=1), "give a Dataset"),
    "arrays to evaluate": (lambda: trainer().evaluate(IMAGES), "give a Dataset"),
    "tta": (lambda: trainer().evaluate(DATA, tta="mirror"), "known are flip"),
    "watch": (lambda: trainer().fit(DATA, DATA, epochs=1, watch=5), "give a function or None"),
    "lr": (lambda: optim.SGD(lr="0.1"), "give a number"),
    "learning_rate": (lambda: optim.SGD(learning_rate=0.1), "did you mean 'lr'?"),
    "weight_decay": (lambda: optim.AdamW(lr=0.1, weight_decay=None), "give a number"),
    "decay": (lambda: EMA("0.9"), "give a number"),
    "every": (lambda: Lookahead(2.5, 10), "give an integer"),
    "rate": (lambda: schedules.cosine("0.1", 10), "give a number"),
    "milestones": (lambda: schedules.step_decay(0.1, 30), "give a sequence"),
    "model's shape": (lambda: models.build("mlp", 28), "give a sequence"),
    "model's classes": (lambda: models.build("mlp", SHAPE, NAMES), "give an integer"),
    "no classes": (lambda: models.build("mlp", SHAPE, 0), "in 0 classes: give (H, W, C), all >= 1"),
    "channels": (lambda: layers.Conv2D("3", 8, 3), "give an integer"),
    "float channels": (lambda: layers.Conv2D(3, 8.0, 3), "give an integer"),
    "negative channels": (lambda: layers.Conv2D(3, -8, 3), "of at least 1"),
    "no features": (lambda: layers.Linear(0, 5), "of at least 1"),
    "dropout": (lambda: layers.Dropout("0.5"), "give a number"),
    "window": (lambda: layers.MaxPool2D("2"), "give an integer or"),
    "a list of layers": (lambda: layers.Sequential([layers.ReLU()]), "Sequential(*layers)"),
    "a class of layers": (lambda: layers.Sequential(layers.ReLU), "give a Layer"),
    "a list to a model": (lambda: net().initialize()([[1.0]]), "an array is needed"),
    "a list to a loss": (lambda: losses.softmax_cross_entropy([[1.0]], [0]), "an array is needed"),
    "labels in a list": (lambda: losses.softmax_cross_entropy(np.ones((1, 2)), [0]), "an array is needed"),
    "targets in a list": (lambda: losses.mean_squared_error(np.ones(1), [0]), "an array is needed"),
    "name": (lambda: load_dataset(None), "give a string"),
    "data_dir": (lambda: load_dataset("mnist", 5), "give a string or a path or None"),
    "device": (lambda: get_backend(None), "give one of"),
    "summary": (lambda: summary("mlp", SHAPE), "give a Layer"),
    "flip": (lambda: Augmentation(flip="yes"), "give True or False"),
    "crop": (lambda: Augmentation(crop="2"), "give an integer"),
    "flips": (lambda: Augmentation(flips=True), "did you mean 'flip'?"),
    "loader's mean": (lambda: Loader(DATA, 2, mean=0.5, std=0.2), "give a sequence"),
    "loader's data": (lambda: Loader((IMAGES, LABELS), 2, **STATISTICS), "give a Dataset"),
    "validation": (lambda: split_validation(DATA, "0.1", 0), "give a number"),
    "deepcopy": (lambda: copy.deepcopy(net().initialize()), "load_state_dict(model.state_dict())"),
    "pickle": (lambda: pickle.dumps(trainer()), "load_state_dict(model.state_dict())"),
    "images": (lambda: Dataset("d", np.full((12, *SHAPE), np.nan), LABELS, NAMES), "images hold NaN or infinity"),
    "channels first": (lambda: Dataset("d", IMAGES.transpose(0, 3, 1, 2), LABELS, NAMES), "transpose(0, 2, 3, 1)"),
    "no channels": (lambda: Dataset("d", IMAGES[..., 0], LABELS, NAMES), "images[..., None]"),
    "ragged images": (lambda: Dataset("d", [[1, 2], [3]], LABELS, NAMES), "give images of one shape"),
    "no images": (lambda: Dataset("d", None, LABELS, NAMES), "images are object ()"),
    "one-hot labels": (lambda: Dataset("d", IMAGES, np.eye(3)[LABELS], NAMES), "labels.argmax(axis=1)"),
    "float labels": (lambda: Dataset("d", IMAGES, LABELS.astype(float), NAMES), "labels are float64"),
    "labels of text": (lambda: Dataset("d", IMAGES, list("abcabcabcabc"), NAMES), "labels are <U1"),
    "large labels": (lambda: Dataset("d", IMAGES, [256] * 12, NAMES), "has label 256"),
    "negative labels": (lambda: Dataset("d", IMAGES, [-1] * 12, NAMES), "has label -1"),
    "a number of classes": (lambda: Dataset("d", IMAGES, LABELS, 3), "give the name of each"),
    "one string of classes": (lambda: Dataset("d", IMAGES, LABELS, "abc"), "give the name of each"),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_one_line(slip: str) -> None:
    call, message = SLIPS[slip]
    with pytest.raises(GpucnnError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_meant_is_taken() -> None:
    listed = Dataset("d", IMAGES, LABELS.tolist(), list(NAMES))
    assert listed.digest == DATA.digest
    assert listed.classes == NAMES
    whole = trainer(batch_size=np.int64(4), seed=np.uint8(3), backend=REFERENCE, options=TrainerOptions(mean=[0.5]))
    assert (whole.batch_size, whole.clock.seed, type(whole.clock.seed)) == (4, 3, int)
    assert layers.Conv2D(np.int32(1), 2, [3, 3]).weight.shape == (2, 3, 3, 1)
    Loader(DATA, 2, mean=np.array([0.5]), std=[np.float32(0.2)])
    assert optim.SGD(lr=1).lr == 1


def test_the_annotations_of_a_function_are_what_is_checked() -> None:
    @checked
    def made(count: int, *rest: float, name: str | None = None, **more: tuple[int, int]) -> tuple[object, ...]:
        return count, rest, name, more

    assert made(1, 2, 0.5, name="x", pair=(1, 2)) == (1, (2, 0.5), "x", {"pair": (1, 2)})
    for call in (
        partial(made, 1.0),
        partial(made, 1, "2"),
        partial(made, 1, name=3),
        partial(made, 1, pair=(1, "2")),
        made,
    ):
        with pytest.raises(UsageError, match="made"):
            call()


def test_an_annotation_for_type_checkers_alone_is_no_error() -> None:
    class Mine(layers.Layer):
        def __init__(self, first: "Nowhere") -> None:  # noqa: F821
            self.first = first

    assert Mine(3).first == 3


def test_public_names_are_found_when_they_are_asked_for() -> None:
    assert {name for name in gpucnn.__all__ if not hasattr(gpucnn, name)} == set()
    assert set(gpucnn.__all__) <= set(dir(gpucnn))
    with pytest.raises(AttributeError, match="no attribute 'Trainr'"):
        gpucnn.Trainr  # noqa: B018
