"""``CNNClassifier`` is a scikit-learn estimator: its own checks, pipelines, searches, copies."""

import pickle
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import SkipTestWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from gpucnn.errors import ShapeError
from gpucnn.sklearn import CNNClassifier

EXPECTED_FAILURES: dict[str, str] = {}
"""Check of scikit-learn -> why it fails: none does."""

DIGITS = load_digits()


def net(**changes: object) -> CNNClassifier:
    settings = {"epochs": 20, "batch_size": 32, "lr": 0.01, "backend": "reference", "random_state": 0}
    return CNNClassifier("mlp", **{"model_options": {"width": 16}, **settings, **changes})


def test_scikit_learns_own_checks_pass() -> None:
    mine = net(epochs=15, lr=0.03)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)  # of what needs pandas
        done = check_estimator(mine, expected_failed_checks=EXPECTED_FAILURES, on_skip=None)
    assert len([row for row in done if row["status"] == "passed"]) > 40
    assert {row["check_name"] for row in done if row["status"] == "xfail"} == set(EXPECTED_FAILURES)


def test_images_and_flat_rows_give_the_same() -> None:
    images, y = DIGITS.images[:200], DIGITS.target[:200]
    flat = net(image_shape=(8, 8)).fit(images.reshape(200, -1), y)
    for given in (images, images[..., np.newaxis]):
        assert np.array_equal(net().fit(given, y).predict_proba(given), flat.predict_proba(images.reshape(200, -1)))
    assert flat.score(images.reshape(200, -1), y) > 0.9
    as_bytes = (images * 15).astype(np.uint8)  # on another scale: as normalised, up to rounding
    found = net().fit(as_bytes, y)
    np.testing.assert_allclose(found.predict_proba(as_bytes), net().fit(images, y).predict_proba(images), atol=0.01)
    assert found.classifier_.pixels == "uint8"
    assert flat.image_shape_ == (8, 8, 1)
    with pytest.raises(ShapeError, match="image_shape is"):
        net(image_shape=(7, 9)).fit(images.reshape(200, -1), y)
    with pytest.raises(ShapeError, match="was fitted to"):
        net().fit(images, y).predict(images[:, :, :4])


def test_pipelines_searches_copies_and_labels_of_text() -> None:
    X, y = DIGITS.data[:300], np.array([f"digit {n}" for n in DIGITS.target[:300]])
    pipe = make_pipeline(FunctionTransformer(lambda x: x / 16.0), net())
    assert cross_val_score(pipe, X, y, cv=2).mean() > 0.7
    search = GridSearchCV(net(), {"lr": [1e-9, 0.01], "model_options": [{"width": 16}]}, cv=2).fit(X, y)
    assert search.best_params_["lr"] == 0.01
    best = search.best_estimator_
    again = pickle.loads(pickle.dumps(best))
    assert np.array_equal(again.predict_proba(X), best.predict_proba(X))
    assert set(best.predict(X)) <= set(y)
    assert list(best.classes_) == sorted(set(y))
    assert clone(best).get_params() == best.get_params()
    assert not hasattr(clone(best), "classifier_")
    assert np.array_equal(clone(best).fit(X, y).predict_proba(X), best.predict_proba(X))  # by its random_state
