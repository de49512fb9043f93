"""What a run says of itself: how long it will take."""

import io
import sys

import pytest

from gpucnn.cli import progress
from gpucnn.cli.progress import Display, left
from gpucnn.training.trainer import EpochReport, IntervalReport


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(59.0, ""), (90.0, "  2 min left"), (3600.0, "  60 min left"), (7800.0, "  2 h 10 min left")],
)
def test_time_left_in_words(seconds: float, words: str) -> None:
    assert left(seconds) == words


@pytest.mark.parametrize(("seconds", "told"), [(30.0, [False, True, False]), (90.0, [True, True, False])])
def test_a_short_first_epoch_promises_nothing(
    seconds: float, told: list[bool], capsys: pytest.CaptureFixture[str]
) -> None:
    display = Display(epochs=5)
    for epoch in (1, 2, 5):
        display.epoch(EpochReport(epoch, 1.0, 0.5, 1.0, 0.5, 0.1, seconds, 100.0), best=False)
    assert ["min left" in line for line in capsys.readouterr().out.splitlines()] == told


def test_a_run_that_ends_within_an_epoch_is_over_sooner(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(epochs=10, max_steps=250)
    display.interval(IntervalReport(1, 100, 100, 1.0, 0.5, 100.0, 100, 10, 0.1))
    display.epoch(EpochReport(1, 1.0, 0.5, 1.0, 0.5, 0.1, 600.0, 100.0), best=False)
    assert capsys.readouterr().out.endswith("  15 min left\n")


def test_a_line_that_nobody_reads_does_not_end_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    display = Display(epochs=1)
    display.terminal, display.last_line = False, -1e9
    monkeypatch.setattr(sys, "stdout", Gone())
    with pytest.raises(BrokenPipeError):
        display.line("it would be written")
    display.interval(IntervalReport(1, 50, 100, 1.0, 0.5, 100.0, 100, 10, 0.1))


@pytest.mark.parametrize("room", [40, 60, 80, 200])
@pytest.mark.parametrize(("epochs", "loss"), [(5, 0.1234), (1000, 2.302), (100, 1e30), (100, float("nan"))])
def test_every_width_has_the_accuracy(
    room: int, epochs: int, loss: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(progress, "room", lambda stream: room)
    monkeypatch.setattr(progress, "show", shown.append)
    display = Display(epochs)
    display.terminal, display.start = True, -1e6  # so that hours are left
    display.interval(IntervalReport(epochs, 9, 46_900, loss, 0.9876, 1234567.0, 576, 9, 0.1))
    display.epoch(EpochReport(1, loss, 0.5, loss, 0.9876, 0.1, 12_345.6, 1234567.0), best=True)
    (line,) = capsys.readouterr().out.splitlines()
    assert len(shown[0]) < room
    assert len(line) <= room
    assert "accuracy 0.9876" in shown[0]
    assert "acc 0.9876*" in line
    if room == 200:
        assert all(words in line for words in ("train loss", "acc 0.5000", "12345.6 s", "1,234,567 images/s", "left"))


def test_numbers_of_epochs_stand_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(epochs=100)
    for epoch, loss in ((1, 2.3), (10, 0.04), (100, 12.5)):
        display.epoch(EpochReport(epoch, loss, 0.5, loss, 0.6, 0.1, 0.5, 100.0), best=epoch == 1)
    lines = capsys.readouterr().out.splitlines()
    assert len({line.index(" acc 0.5") for line in lines}) == 1
    assert len({line.index(" acc 0.6") for line in lines}) == 1
    assert max(map(len, lines)) <= 80
