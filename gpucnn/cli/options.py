"""Flags that several commands share."""

import argparse
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from gpucnn.backend import Backend
from gpucnn.data.reading import LARGEST_SIDE, Parts, Reading
from gpucnn.data.registry import DATASETS, find_source, is_path, load_parts
from gpucnn.data.stored import free_memory
from gpucnn.devices.cores import thread_count
from gpucnn.devices.gpu_memory import images_limit
from gpucnn.devices.select import choose_backend
from gpucnn.errors import UsageError, closest, nearest, shown
from gpucnn.inference.tta import VIEWS
from gpucnn.runs.config import Config, stated_settings
from gpucnn.terminal import say, tell
from gpucnn.types import Shape

TRAINED = "best.h5 of a run, say, or a pretrained model of gpucnn recipes"

LARGEST = 512  # pixels of a side, or channels

FORMATS = (".png", ".svg", ".pdf")  # of plots

DEVICE = ("run.device", "run.strict_device", "run.memory_limit", "run.threads")
"""The settings whose flags other commands have too."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line; for an unknown flag it names the closest one.  No flag is abbreviated."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        see = f"see {self.prog} --help"
        last = self._subparsers is None  # else the flags behind the next word are those of a command
        for word in takewhile(lambda word: word != "--" and (last or word.startswith("-")), args or ()):
            flag = word.partition("=")[0]
            if flag.startswith("--") and flag not in self._option_string_actions:
                known = {f.strip("-").replace("-", "_"): f for f in self._option_string_actions if f[1] == "-"}
                name = nearest(flag.strip("-").replace("-", "_"), known)
                self.error(f"unknown flag {flag}: {f'did you mean {known[name]}?' if name else see}")
        return super().parse_known_args(args, namespace)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"{value!r} is unknown{closest(value, action.choices)}")

    def error(self, message: str) -> NoReturn:
        tell(f"error: {message}")
        sys.exit(2)

    def _print_message(self, message: str, file: Any = None) -> None:
        with suppress(OSError):  # as argparse does; what could not be written is said at the end
            say(*message.splitlines())


def check_number(flag: str, value: float, least: float, most: float) -> None:
    """Raises UsageError for the number of a flag that is out of its bounds."""
    if not least <= value <= most:
        raise UsageError(f"{flag} {shown(value)}: give a number from {least:,} to {most:,}")


def add_setting_flags(parser: argparse.ArgumentParser, names: Collection[str] = ()) -> None:
    """The flags of a run's settings, as their fields state them: of all, or of those of these names."""
    for name, field, kind, default in stated_settings():
        if not field.flags or (names and name not in names):
            continue
        if kind is bool:
            parser.add_argument(*field.flags, action="store_true", default=None, help=field.help)
        elif kind == tuple[int, ...]:
            parser.add_argument(*field.flags, type=integers, metavar="HxW", help=field.help)
        elif kind not in (int, float, str):
            line = f"{field.help}; with commas, or given again"
            parser.add_argument(*field.flags, action="extend", type=lambda s: s.split(","), metavar="NAMES", help=line)
        else:
            choices = f"{', '.join(field.choices)}; " if field.choices else ""
            shown = f"{default:g}" if kind is float else default or repr(default)
            line = f"{field.help} ({choices}default: {shown})".replace("%", "%%")
            parser.add_argument(*field.flags, type=kind, metavar=kind.__name__.upper(), help=line)


def integers(text: str) -> tuple[int, ...]:
    """Height and width: 64x48, "64 48" or 64 -> (64, 48) or (64, 64)."""
    words = re.split("[x, ]+", text.strip().lower())
    if not all(re.fullmatch("[0-9]{1,6}", word) for word in words):
        raise argparse.ArgumentTypeError(f"{shown(text)}: give height and width, as 64x48")
    return tuple(map(int, words * 2 if len(words) == 1 else words))


def flags_given(args: argparse.Namespace) -> dict[str, Any]:
    """Dotted name -> value of the settings whose flags were given."""
    values = {name: getattr(args, field.dest, None) for name, field, *_ in stated_settings() if field.flags}
    return {name: value for name, value in values.items() if value is not None}


def flag_of(name: str) -> str:
    """The flag of a setting that has one."""
    return next(field.flags[0] for other, field, *_ in stated_settings() if other == name)


def add_data_options(parser: argparse.ArgumentParser, *, download: bool = True) -> None:
    places = "where data sets lie (or GPUCNN_DATA_DIR, or ~/.cache/gpucnn)"
    parser.add_argument("--data-dir", metavar="DIR", help=places)
    if download:
        parser.add_argument("--no-download", action="store_true", help="fail rather than fetch a missing data set")


def reading(config: Config, args: argparse.Namespace, *, trained: bool = False) -> Reading:
    """How a config's own images are read; for a trained model, as it takes them."""
    d, (height, width, channels) = config.data, config.model.input_shape if trained else (0, 0, 0)
    known = trained and max(height, width) <= LARGEST_SIDE
    return Reading(
        size=(height, width) if known else () if trained else d.size,
        fit=d.fit,
        channels=channels if channels in (1, 3) else d.channels,
        skip_broken=d.skip_broken or bool(getattr(args, "skip_broken", False)),
        classes=d.classes if trained else (),
        threads=thread_count(getattr(args, "threads", None) or config.run.threads),
        memory=images_limit(config.run.data_memory, free_memory()),
    )


def load_fitted(name: str, args: argparse.Namespace, config: Config, *, trained: bool = False) -> Parts:
    """``load_named``, with pictures as ``data.size``, ``fit`` and ``channels`` want them, also those of a named set."""
    d = config.data
    return load_named(name, args, reading(config, args, trained=trained)).fitted(d.size, d.channels, d.fit)


def load_named(name: str, args: argparse.Namespace, how: Reading) -> Parts:
    """The parts of the data set of this name or path, by the flags of ``add_data_options``.

    Raises:
        UsageError: a folder is named for a set that has no files.
    """
    if is_path(name):
        if args.data_dir:
            raise UsageError(f"--data-dir {args.data_dir} is not used: {name} is a path, which says where it is")
        return load_parts(name, how=how)
    key, source = find_source(name)
    if source.built_in and args.data_dir:
        others = ", ".join(name for name, source in DATASETS.items() if not source.built_in)
        raise UsageError(
            f"--data-dir {args.data_dir} is not used: the data set is {key!r}, which is built in; name the one in that "
            f"folder with --dataset ({others}), or leave out --data-dir"
        )
    return load_parts(name, args.data_dir, download=not args.no_download, how=how)


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """The flag of commands that make models."""
    mine = "a Python file with layers and models of your own, which @models.register marks; may be repeated"
    parser.add_argument("--plugin", action="append", default=[], type=Path, metavar="FILE", help=mine)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """The flags of commands that ask a trained model for its answers."""
    views = "average over views of each image: flip (2), shift (3) or multicrop (6); default: none"
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="PATH", help=TRAINED)
    parser.add_argument("--tta", choices=list(VIEWS), default="none", help=views)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    add_setting_flags(parser, (*DEVICE, "data.skip_broken"))


def check_picture(out: Path) -> None:
    """Raises UsageError where no picture can be written to this path."""
    if out.suffix.lower() not in FORMATS:
        raise UsageError(f"--out {out}: the name must end in {', '.join(FORMATS)}")
    check_place(out)


def check_place(out: Path) -> None:
    """Raises UsageError where no file can be written to this path: it is a folder, or there is none for it."""
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"--out {out}: {'this is a folder' if out.is_dir() else f'there is no folder {out.parent}'}")


def shape_from(text: str) -> Shape:
    """--input-shape 28x28x1 -> (28, 28, 1)."""
    sizes = text.split("x")
    if len(sizes) != 3 or not all(re.fullmatch("[0-9]{1,3}", size) and 0 < int(size) <= LARGEST for size in sizes):
        known = f"height, width and channels, each at most {LARGEST}, as in 28x28x1"
        raise UsageError(f"--input-shape {shown(text)}: give {known}")
    return tuple(int(size) for size in sizes)


@contextmanager
def writing(out: Path, flag: str = "--out") -> Iterator[None]:
    """Raises UsageError where the system refuses what is written to this path."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{flag} {out}: {error.strerror or error}") from None


def backend_from(asked: Any) -> tuple[Backend, str]:
    """``choose_backend`` from the flags of ``DEVICE``, None where they are not given, or from a config's [run]."""
    limit = asked.memory_limit or ""
    return choose_backend(asked.device or "auto", bool(asked.strict_device), asked.threads or 0, limit)


def describe(backend: Backend) -> str:
    """A backend, human-readable: its name and how many ops have kernels, or why none has."""
    from gpucnn.devices import cpu

    none = "no kernels, ops run on the reference implementation"
    kernels = f"{len(backend.kernels)} kernels" if backend.kernels else none
    if backend.name == "cpu" and (reason := cpu.problem()):
        kernels = f"NO KERNELS: {reason}"
    return f"{backend.name} ({backend.xp.__name__} {backend.xp.__version__}, {kernels})"
