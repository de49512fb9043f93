"""Progress of a run: one line per epoch; within an epoch a line that is overwritten, or now and then one elsewhere."""

import sys
from contextlib import suppress
from time import monotonic

from gpucnn.cli.columns import widest
from gpucnn.terminal import is_terminal, room, say, show
from gpucnn.training.trainer import EpochReport, IntervalReport

WARM = 60.0  # seconds; a first epoch that took longer predicts how long the others take
QUIET_SECONDS = 20.0  # between two lines of a long epoch where there is no terminal
BAR = 24  # columns


class Display:
    """Prints to standard output; the line that is overwritten goes to standard error.

    Args:
        epochs: of the whole run.
        max_steps: where it ends if that is earlier; 0: with the epochs.
    """

    def __init__(self, epochs: int, max_steps: int = 0) -> None:
        self.epochs, self.max_steps = epochs, max_steps
        self.end = float(epochs)  # of the run, in epochs
        self.terminal = is_terminal(sys.stderr)
        self.last_line = self.start = monotonic()
        self.started = False

    def begin(self, epoch: int) -> None:
        """Show that an epoch, counted from 1, has begun."""
        self.start = monotonic()
        if epoch <= self.end:
            show(f"{self.name(epoch)}  first steps")

    def interval(self, report: IntervalReport) -> None:
        """Show the current epoch."""
        if self.max_steps:
            self.end = min(self.epochs, self.max_steps / report.batches)
        done = report.batch / report.batches
        more = left((monotonic() - self.start) * (1.0 - done) / done)
        bar = f"|{'#' * round(BAR * done):<{BAR}}|"
        epoch, batch = self.name(report.epoch), f"{report.batch:>{len(str(report.batches))}}/{report.batches}"
        loss, accuracy = f"loss {short(report.loss)}", f"accuracy {report.accuracy:.4f}"
        speed = f"{report.images_per_second:,.0f} images/s{more}"
        forms = [
            f"{epoch} {bar} {batch}  {loss}  {accuracy}  {speed}",
            f"{epoch}  {batch}  {loss}  {accuracy}  {speed}",
            f"{epoch}  {batch}  {loss}  {accuracy}",
            f"{epoch}  {loss}  {accuracy}",
            f"{epoch}  {accuracy}",
        ]
        if self.terminal:
            show(widest(forms, room(sys.stderr) - 1))
        elif monotonic() - self.last_line > QUIET_SECONDS and report.batch < report.batches:
            with suppress(OSError):  # a closed output must not end the epoch unsaved
                self.line(widest(forms[1:], room(sys.stdout)))

    def epoch(self, report: EpochReport, *, best: bool) -> None:
        """One line for a finished epoch; a star marks the best so far."""
        self.close()
        warm = self.started or report.seconds > WARM  # compiling kernels is most of a short first epoch
        self.started = True
        more = left((self.end - report.epoch) * report.seconds) if warm else ""
        epoch, accuracy = self.name(report.epoch), f"acc {report.test_accuracy:.4f}{'*' if best else ' '}"
        train, test = f"train loss {short(report.train_loss)}", f"test loss {short(report.test_loss)} {accuracy}"
        both = f"{epoch}  {train} acc {report.train_accuracy:.4f}  {test}"
        seconds, speed = f"{report.seconds:.1f} s", f"{report.images_per_second:,.0f} images/s"
        forms = [
            f"{both}  {seconds}  {speed}{more}",
            f"{both}  {seconds}{more}",
            f"{epoch}  {train}  {test}{more}" if more else both,
            f"{epoch}  {train}  {test}",
            f"{epoch}  {test}",
            f"{epoch}  test {accuracy}",
        ]
        self.line(widest([form.rstrip() for form in forms], room(sys.stdout)))
        self.begin(report.epoch + 1)

    def name(self, epoch: int) -> str:
        """The epoch and how many there are."""
        return f"epoch {epoch:>{len(str(self.epochs))}}/{self.epochs}"

    def line(self, *lines: str) -> None:
        """Print lines that stay."""
        say(*lines)
        self.last_line = monotonic()

    def close(self) -> None:
        """Remove the line that is overwritten."""
        show("")


def short(loss: float) -> str:
    """A loss in six characters or a few more."""
    return f"{loss:6.4f}" if loss < 10 else f"{loss:6.4g}"


def left(seconds: float) -> str:
    """The time left in words; "" under a minute."""
    if seconds < 60.0:
        return ""
    minutes = round(seconds / 60.0)
    return f"  {minutes} min left" if minutes < 120 else f"  {minutes // 60} h {minutes % 60:02d} min left"
