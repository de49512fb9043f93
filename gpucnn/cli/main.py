"""``gpucnn COMMAND``: runs the command's file and turns expected failures into one line and an exit code.

Exit codes: 0 ok, 1 failure, 2 usage, 3 data or checksum, 4 bad checkpoint, 5 NaN or infinity, 6 GPU missing or
out of memory, 129 lost terminal, 130 Ctrl-C, 143 SIGTERM.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any, NoReturn

from gpucnn.cli.options import Parser
from gpucnn.devices.gpu_memory import exhausted
from gpucnn.errors import DeviceError, GpucnnError, closest
from gpucnn.version import __version__

COMMANDS = {
    "train": "train a model, or go on with a run",
    "evaluate": "accuracy, loss and confusion matrix of a checkpoint",
    "predict": "class names and probabilities for image files",
    "find-lr": "raise the learning rate until the loss explodes, and plot it",
    "plot": "learning curves of one run or of many",
    "inspect": "what a checkpoint holds",
    "export": "a trained model to hand on, without its optimiser's state",
    "features": "pictures of what convolution, ReLU and pooling make of a photograph",
    "explain": "a page on which every number of forward and backward can be clicked",
    "augmentations": "a picture of what training does to images, epoch by epoch",
    "data": "download, verify and list data sets",
    "doctor": "what this machine has, what is used, and why not",
    "benchmark": "training steps against PyTorch on this machine",
    "gradcheck": "finite differences against every layer's gradients",
    "parity": "a backend against the reference, layer by layer, forward and backward",
}
"""command -> one line; the code is gpucnn/cli/COMMAND.py ("-" becomes "_"), imported only when it is asked for."""


def build_parser(commands: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; only the commands named get their flags, so that only their modules are imported."""
    parser = Parser(prog="gpucnn", description="Train convolutional networks that read like a lecture.")
    parser.add_argument("--version", action="version", version=f"gpucnn {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, line in COMMANDS.items():
        sub = subparsers.add_parser(name, help=line, description=line.capitalize() + ".")
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name in commands:
            module(name).add_arguments(sub)
    return parser


def module(command: str) -> Any:
    """The file of a command: ``add_arguments`` gives a parser its flags, ``run`` returns its exit code."""
    return import_module(f"gpucnn.cli.{command.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = build_parser(words[:1])
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        parser.error(f"unknown command {words[0]!r}{closest(words[0], COMMANDS)}")
    args = parser.parse_args(words)
    if isinstance(sys.stdout, TextIOWrapper):  # a file's name may be what the terminal's encoding lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = int(module(args.command).run(args))
        if not code:
            sys.stdout.flush()  # what was printed may not have been written before
        return code
    except GpucnnError as error:
        return fail(args, error, error.exit_code)
    except KeyboardInterrupt:
        print("gpucnn: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has closed it
        sys.stderr.close()
        return 1
    except Exception as error:
        if what := exhausted(error):  # before MemoryError, from which CuPy's is derived
            return fail(args, error, DeviceError.exit_code, f"{what}: use a smaller batch")
        if isinstance(error, MemoryError):
            return fail(args, error, 1, "out of memory: use a smaller --batch-size")
        if isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename else ""
            return fail(args, error, 1, f"{where}{error.strerror or error}: check name, rights and free space")
        raise


def fail(args: argparse.Namespace, error: BaseException, code: int, message: str = "") -> int:
    """Print an expected failure as one line."""
    if args.debug:
        raise error
    print(f"gpucnn: error: {message or error}", file=sys.stderr)
    return code


def command(argv: Sequence[str] | None = None) -> NoReturn:
    """``main`` as a process, with its exit code even where the output cannot be written."""
    code = main(argv)
    try:
        sys.stdout.flush()
    except OSError:  # at its end Python would try again, and make the code 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


if __name__ == "__main__":
    command()
