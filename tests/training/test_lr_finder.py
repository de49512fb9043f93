"""The learning-rate range test, against hand-made losses and on a real net."""

from math import log
from pathlib import Path

import numpy as np
import pytest

from gpucnn import Trainer, TrainerOptions, load_dataset, models, optim
from gpucnn.cli.main import main
from gpucnn.errors import UsageError
from gpucnn.layers import Flatten, Linear, Sequential, Whitening
from gpucnn.training.lr_finder import conclude, exponential, find_lr, smooth


def test_rates_are_evenly_spaced_on_a_logarithmic_scale() -> None:
    rates = exponential(1e-3, 10.0, 5)
    np.testing.assert_allclose(rates, [1e-3, 1e-2, 1e-1, 1.0, 10.0])


def test_smoothing_is_an_exponential_mean_without_its_start() -> None:
    losses = [4.0, 2.0, 3.0]
    weights = [[1.0], [0.9 * 0.1, 0.1], [0.81 * 0.1, 0.9 * 0.1, 0.1]]
    expected = [np.dot(w, losses[: len(w)]) / sum(w) for w in weights]
    np.testing.assert_allclose(smooth(losses), expected)


def test_steepest_and_lowest_are_found_in_a_loss_with_a_cliff() -> None:
    rates = exponential(1e-4, 1.0, 41)
    losses = [2.0 if lr < 1e-2 else 1.0 if lr < 0.3 else 9.0 for lr in rates]
    found = conclude(rates, losses)
    assert found.steepest == pytest.approx(min(lr for lr in rates if lr >= 1e-2))
    assert found.lowest == pytest.approx(max(lr for lr in rates if lr < 0.3))
    falls = np.diff(found.smoothed) / log(rates[1] / rates[0])
    assert found.steepest == rates[1 + int(np.argmin(falls[: rates.index(found.lowest)]))]


def trainer() -> Trainer:
    return Trainer(models.build("mlp", (8, 8, 1)), optim.SGD(0.1, momentum=0.9), batch_size=64)


def test_a_net_learns_then_explodes() -> None:
    train, _ = load_dataset("digits")
    found = find_lr(trainer(), train, low=1e-4, high=1e3, steps=60)
    assert len(found.rates) < 60  # it ended early
    assert found.smoothed[-1] > 2 * min(found.smoothed) or len(found.losses) == len(found.rates)
    assert 1e-3 < found.steepest <= found.lowest < 10.0
    assert min(found.smoothed) < 0.8 * found.smoothed[0]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"low": 1.0, "high": 0.1, "steps": 50}, "give 0 < --from < --to"),
        ({"low": 0.1, "high": 1.0, "steps": 2}, "steps = 2"),
        ({"low": 1e6, "high": 1e9, "steps": 50}, "start lower"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # that numbers overflow is the point
def test_a_range_that_shows_nothing_is_refused(how: dict[str, float], reason: str) -> None:
    train, _ = load_dataset("digits")
    with pytest.raises(UsageError, match=reason):
        find_lr(trainer(), train, **how)


def test_filters_are_made_from_the_images_as_in_training() -> None:
    train, _ = load_dataset("digits")
    made = []
    for tried in (True, False):
        layers = Sequential(Whitening(1), Flatten(), Linear(8 * 7 * 7, 10))
        trainer = Trainer(layers, optim.SGD(0.01), batch_size=128, options=TrainerOptions(max_steps=1))
        if tried:
            find_lr(trainer, train, low=1e-4, high=1e-3, steps=8)
        else:
            list(trainer.fit(train, train, epochs=1))
        made.append(layers.state_dict()["0.weight"])
    np.testing.assert_array_equal(*made)


def test_a_first_step_that_gives_nan_names_its_rate() -> None:
    with pytest.raises(UsageError, match=r"already at a rate of 0\.5"):
        conclude([0.5, 1.0, 2.0], [])


@pytest.mark.parametrize("name", ["range", "range.xyz", "nowhere/range.png", "folder.png"])
def test_an_invalid_output_file_is_refused_before_the_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr("gpucnn.cli.find_lr.find_lr", None)
    assert main(["find-lr", "--model", "mlp", "--device", "reference", "--out", str(tmp_path / name)]) == 2
    assert f"--out {tmp_path / name}" in capsys.readouterr().err


def test_the_command_prints_a_rate_and_saves_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "range.png"
    words = ["--model", "mlp", "--device", "reference", "--steps", "40", "--from", "1e-3", "--to", "1"]
    assert main(["find-lr", *words, "--out", str(out)]) == 0
    assert "falls fastest at lr" in capsys.readouterr().out
    assert out.read_bytes().startswith(b"\x89PNG")
