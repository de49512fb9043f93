"""``gpucnn COMMAND``: runs the command's file and turns expected failures into one line and an exit code.

Exit codes: 0 ok, 1 failure, 2 usage, 3 data or checksum, 4 bad checkpoint, 5 NaN or infinity, 6 GPU missing or
out of memory, 129 lost terminal, 130 Ctrl-C, 143 SIGTERM.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper

from gpucnn.cli import signals, streams
from gpucnn.version import __version__

TYPE_CHECKING = False  # what takes long to import is imported in ``main``, after ``command`` has set its handlers
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import Any, NoReturn

COMMANDS = {
    "train": "train a model, or go on with a run",
    "evaluate": "accuracy, loss and confusion matrix of a checkpoint",
    "predict": "class names and probabilities for image files",
    "find-lr": "raise the learning rate until the loss explodes, and plot it",
    "plot": "learning curves of one run or of many",
    "recipes": "recipes and pretrained models that come with gpucnn, as measured",
    "inspect": "what a checkpoint holds",
    "export": "a trained model to hand on, or in the formats of other programs",
    "import": "weights of PyTorch and others, as a checkpoint",
    "features": "pictures of what convolution, ReLU and pooling make of a photograph",
    "explain": "a page on which every number of forward and backward can be clicked",
    "augmentations": "a picture of what training does to images, epoch by epoch",
    "data": "list, download, verify and inspect data sets",
    "doctor": "what this machine has, what is used, and why not",
    "benchmark": "training steps against PyTorch on this machine",
    "gradcheck": "finite differences against every layer's gradients",
    "parity": "a backend against the reference, layer by layer, forward and backward",
}
"""command -> one line; the code is gpucnn/cli/COMMAND.py ("-" becomes "_"), imported only when it is asked for."""

WITHOUT_MODELS = ("plot", "recipes", "data", "doctor", "benchmark")
"""Commands without --plugin: they make no model, or make it in other processes."""


def build_parser(commands: Sequence[str]) -> "ArgumentParser":
    """The parser; only the commands named get their flags, so that only their modules are imported."""
    from gpucnn.cli.options import Parser, add_plugin_option

    parser = Parser(prog="gpucnn", description="Train convolutional networks that read like a lecture.")
    parser.add_argument("--version", action="version", version=f"gpucnn {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, line in COMMANDS.items():
        sub = subparsers.add_parser(name, help=line, description=line.capitalize() + ".")
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name in commands:
            module(name).add_arguments(sub)
            if name not in WITHOUT_MODELS:
                add_plugin_option(sub)
    return parser


def module(command: str) -> "Any":
    """The file of a command: ``add_arguments`` gives a parser its flags, ``run`` returns its exit code."""
    return import_module(f"gpucnn.cli.{command.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    from gpucnn.devices.gpu_memory import exhausted
    from gpucnn.errors import DeviceError, GpucnnError, closest
    from gpucnn.terminal import libraries_tamed

    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(words[:1])
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        parser.error(f"unknown command {words[0]!r}{closest(words[0], COMMANDS)}")
    args = parser.parse_args(words)
    if isinstance(sys.stdout, TextIOWrapper):  # a file's name may be what the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with signals.Unwinding(), libraries_tamed(), plugins_of(args):
            return int(module(args.command).run(args))
    except GpucnnError as error:
        return fail(error, error.exit_code, debug=args.debug)
    except KeyboardInterrupt as stop:
        return signals.explain(stop)
    except BrokenPipeError:  # the reader of our output has closed it
        return 1
    except Exception as error:
        if what := exhausted(error):  # before MemoryError, from which CuPy's is derived
            return fail(error, DeviceError.exit_code, f"{what}: use a smaller batch", debug=args.debug)
        if isinstance(error, MemoryError):
            return fail(error, 1, "out of memory: use a smaller --batch-size", debug=args.debug)
        if isinstance(error, OSError):
            return fail(error, 1, refused(error), debug=args.debug)
        raise


def plugins_of(args: "Any") -> "Any":
    """A context with the files of ``--plugin``."""
    from contextlib import nullcontext

    if not getattr(args, "plugin", None):
        return nullcontext()
    from gpucnn.runs.plugins import plugged

    return plugged(args.plugin)


def fail(error: BaseException, code: int, message: str = "", *, debug: bool = False) -> int:
    """Print an expected failure as one line."""
    from gpucnn.terminal import tell

    if debug:
        raise error
    tell(f"error: {message or error}")
    return code


def refused(error: OSError) -> str:
    """What the system would not do, in one line."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}: check name, rights and free space"


def uncaught(*error: "Any") -> None:
    """A traceback, made harmless like every text."""
    from gpucnn.terminal import tell_traceback

    tell_traceback(*error)


def command(argv: Sequence[str] | None = None) -> "NoReturn":
    """``main`` as a process, which ends with its exit code whatever comes: signals, closed streams, full disks."""
    signals.handle(signals.end_at_once)
    output = streams.prepare()
    sys.excepthook = uncaught
    try:
        code = main(argv)
    except SystemExit as stop:  # --help and --version, or words that are not known
        code = int(stop.code or 0)
    refusal = streams.finish(output)
    if refusal and not code:
        code = 1 if isinstance(refusal, BrokenPipeError) else fail(refusal, 1, refused(refusal))
    signals.ignore()
    sys.exit(code)


if __name__ == "__main__":
    command()
