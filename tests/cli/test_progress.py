"""What a run says of itself: how long it will take."""

import io
import sys

import pytest

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
    display.interval(IntervalReport(1, 100, 100, 1.0, 0.5, 100.0))
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
    display.interval(IntervalReport(1, 50, 100, 1.0, 0.5, 100.0))
