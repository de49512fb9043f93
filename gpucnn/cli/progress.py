"""Progress of a run: a bar with loss, accuracy and images/s on a terminal, plain lines elsewhere."""

import sys
from contextlib import suppress
from time import monotonic
from typing import Any

from gpucnn.training.trainer import EpochReport, IntervalReport

WARM = 60.0  # seconds; a first epoch that took longer predicts how long the others take
QUIET_SECONDS = 20.0  # between two lines of a long epoch where there is no terminal


class Display:
    """Prints to standard output; the bar goes to standard error.

    Args:
        epochs: of the whole run.
        max_steps: where it ends if that is earlier; 0: with the epochs.
    """

    def __init__(self, epochs: int, max_steps: int = 0) -> None:
        self.epochs, self.max_steps = epochs, max_steps
        self.end = float(epochs)  # of the run, in epochs
        self.terminal = sys.stderr.isatty()
        self.bar: Any = None
        self.last_line = monotonic()
        self.started = False

    def interval(self, report: IntervalReport) -> None:
        """Show the current epoch."""
        if self.max_steps:
            self.end = min(self.epochs, self.max_steps / report.batches)
        epoch, speed = f"epoch {report.epoch}/{self.epochs}", f"{report.images_per_second:,.0f} images/s"
        numbers = (f"loss {report.loss:.4f}", f"accuracy {report.accuracy:.4f}", speed)
        if self.terminal:
            from tqdm import tqdm

            if self.bar is None:
                form = "{desc} |{bar:24}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
                self.bar = tqdm(total=report.batches, desc=epoch, leave=False, dynamic_ncols=True, bar_format=form)
            self.bar.n = report.batch
            self.bar.set_postfix_str(", ".join(numbers))
        elif monotonic() - self.last_line > QUIET_SECONDS and report.batch < report.batches:
            with suppress(OSError):  # a closed output must not end the epoch unsaved
                self.line("   ".join([epoch, f"batch {report.batch}/{report.batches}", *numbers]))

    def epoch(self, report: EpochReport, *, best: bool) -> None:
        """One line for a finished epoch; a star marks the best so far."""
        self.close()
        warm = self.started or report.seconds > WARM  # compiling kernels is most of a short first epoch
        self.started = True
        self.line(
            f"epoch {report.epoch:>{len(str(self.epochs))}}/{self.epochs}   "
            f"train loss {report.train_loss:.4f}  acc {report.train_accuracy:.4f}   "
            f"test loss {report.test_loss:.4f}  acc {report.test_accuracy:.4f}{'*' if best else ' '}  "
            f"{report.seconds:.1f} s  {report.images_per_second:,.0f} images/s"
            f"{left((self.end - report.epoch) * report.seconds) if warm else ''}"
        )

    def line(self, text: str) -> None:
        """Print a line that stays."""
        print(text, flush=True)
        self.last_line = monotonic()

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def left(seconds: float) -> str:
    """The time left in words; "" under a minute."""
    if seconds < 60.0:
        return ""
    minutes = round(seconds / 60.0)
    return f"  {minutes} min left" if minutes < 120 else f"  {minutes // 60} h {minutes % 60:02d} min left"
