"""The engines that were found fastest, kept on disk: one JSON file per GPU, cuDNN and frontend.

    ~/.cache/gpucnn/cudnn/NVIDIA-H100-80GB-HBM3_91900_1.23.0.json

A file that is damaged or written by somebody else is ignored, with one line on standard error, and written anew.
Where none can be written another line says so, and each process times the engines again.
Two processes that write at once may lose an entry of one another, which is then timed again; a reader never sees half
a file.
"""

import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from gpucnn.terminal import tell

FORMAT = 2  # 1 had engines that were not compared with others


@dataclass(frozen=True)
class Environment:
    """What a choice is valid for.

    Attributes:
        gpu: its name, as in ``NVIDIA H100 80GB HBM3``.
        cudnn: the library's version as a number, as in 91900.
        frontend: the version of its Python interface.
    """

    gpu: str
    cudnn: int
    frontend: str


@dataclass(frozen=True)
class Choice:
    """The engine that was fastest for one convolution.

    Attributes:
        engine: its name with its settings, as in ``eng45_k2=4_k5=3_k14=3``.
        milliseconds: what it took.
        workspace: bytes of scratch memory.
        candidates: how many engines it was the best of.
    """

    engine: str
    milliseconds: float
    workspace: int
    candidates: int


def default_folder() -> Path | None:
    """~/.cache/gpucnn/cudnn, or below XDG_CACHE_HOME; None for a user without a home."""
    with suppress(RuntimeError):
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpucnn" / "cudnn"
    return None


class PlanCache:
    """Choices by a convolution's description, read once and written after each new one."""

    def __init__(self, environment: Environment, folder: Path | None = None) -> None:
        self.environment = environment
        name = f"{environment.gpu}_{environment.cudnn}_{environment.frontend}"
        folder = folder or default_folder()
        self.writable = folder is not None
        if folder is None:
            tell("the choice of cuDNN engines is not kept: this user has no home folder: set XDG_CACHE_HOME")
        self.path = (folder or Path(os.devnull)) / f"{re.sub(r'[^A-Za-z0-9._]+', '-', name)}.json"
        self.choices = self.read() if folder else {}

    def get(self, key: str) -> Choice | None:
        """The choice for a convolution, or None."""
        return self.choices.get(key)

    def put(self, key: str, choice: Choice) -> None:
        """Remember a choice, on disk too where that can be written to."""
        self.choices[key] = choice
        if not self.writable:
            return
        self.choices = {**self.read(), **self.choices}  # with what other processes found meanwhile
        content = {
            "format": FORMAT,
            "environment": asdict(self.environment),
            "choices": {key: asdict(choice) for key, choice in sorted(self.choices.items())},
        }
        temporary = self.path.with_name(f".{self.path.name}.{token_hex(4)}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
                os.replace(temporary, self.path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            self.writable = False
            tell(f"the choice of cuDNN engines cannot be kept in {self.path} ({error.strerror or error})")

    def read(self) -> dict[str, Choice]:
        """What is on disk; nothing where there is no file, or one that is not to be trusted."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return parse(content, self.environment)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            tell(f"ignoring {self.path}, which will be written anew: {' '.join(str(error).split())}")
            return {}


def parse(content: Any, environment: Environment) -> dict[str, Choice]:
    """A file's content -> choices.

    Raises:
        ValueError: it is not what ``PlanCache.put`` writes, or was written elsewhere.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"not a file of format {FORMAT}")
    if content.get("environment") != asdict(environment):
        raise ValueError(f"it belongs to {content.get('environment')}")
    entries = content.get("choices")
    if not isinstance(entries, dict):
        raise ValueError("it has no choices")
    return {key: parse_choice(key, entry) for key, entry in entries.items()}


def parse_choice(key: str, entry: Any) -> Choice:
    """One entry; raises ValueError where it is damaged."""
    kinds: dict[str, tuple[type, ...]] = {
        "engine": (str,),
        "milliseconds": (int, float),
        "workspace": (int,),
        "candidates": (int,),
    }
    if not isinstance(entry, dict) or set(entry) != set(kinds):
        raise ValueError(f"the entry {key!r} has other fields than {', '.join(kinds)}")
    for field, kind in kinds.items():
        if not isinstance(entry[field], kind):
            raise ValueError(f"the entry {key!r} has {field} = {entry[field]!r}")
    return Choice(**entry)
