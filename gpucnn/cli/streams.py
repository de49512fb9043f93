"""Standard input, output and error of a command's process, whatever they are: closed, full, in another encoding."""

import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from select import select

TYPE_CHECKING = False  # as in ``typing``, whose import takes longer than everything here
if TYPE_CHECKING:
    from typing import TextIO


class Output(FileIO):
    """A stream that is written to completely, also where it is set not to block.

    Attributes:
        needed: raise OSError where it cannot be written to; what is not needed is dropped there.
        refusal: the first such error, which a library may have kept to itself.
    """

    refusal: OSError | None = None

    def __init__(self, number: int, *, needed: bool) -> None:
        super().__init__(number, "wb", closefd=False)
        self.needed = needed

    def write(self, data) -> int:  # type: ignore[no-untyped-def]
        size, rest = len(data), memoryview(data)
        try:
            while len(rest):
                done = super().write(rest)
                if done is None:  # full, and set not to block
                    select((), (self,), ())
                rest = rest[done or 0 :]
        except OSError as error:
            error.filename = "standard output"
            self.refusal = self.refusal or error
            if self.needed:
                raise
        return size


def prepare() -> Output:
    """Make the three streams usable -> what is behind standard output.

    One that is closed becomes the null device: else the next file that is opened would get its number, and with it
    what is printed.  What an encoding lacks is written in escapes.  Messages that nobody can read are no error.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number, this one
    sys.stdin = sys.stdin or os.fdopen(0)
    output = Output(1, needed=True)
    sys.stdout, sys.stderr = text(output, sys.stdout), text(Output(2, needed=False), sys.stderr)
    return output


def text(raw: Output, like: "TextIO | None") -> TextIOWrapper:
    """A stream for text, buffered and encoded like the one that Python has made."""
    unbuffered = getattr(like, "write_through", False)
    return TextIOWrapper(
        raw if unbuffered else BufferedWriter(raw),
        encoding=like.encoding if like else "utf-8",
        errors="backslashreplace",
        line_buffering=getattr(like, "line_buffering", False),
        write_through=unbuffered,
    )


def finish(output: Output) -> OSError | None:
    """Write what standard output still holds; why not all of it could be written."""
    try:
        sys.stdout.flush()
    except OSError:  # at its end Python would try once more, and make the exit code 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return output.refusal
