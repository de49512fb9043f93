"""Resume a run: find its checkpoint, and refuse settings or data that would make it a different run."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from gpucnn.checkpoint import Checkpoint
from gpucnn.errors import UsageError
from gpucnn.runs.config import Config
from gpucnn.runs.directory import find_latest
from gpucnn.runs.state import load_run

FREE = {"train.epochs", "train.patience", "train.tta"}
"""Settings that may change when a run goes on: how long it trains, and the last evaluation."""


@dataclass(frozen=True)
class Resumed:
    """A checkpoint to go on from."""

    path: Path
    checkpoint: Checkpoint
    config: Config


def find_resumed(resume: str | None, output: Path | None, root: Path) -> Resumed | None:
    """The checkpoint that ``--resume`` names: a file, a run folder, or 'auto' for the latest run.

    'auto' looks into ``output`` where that is given, else for the newest run below ``root``; with nothing to
    go on from it gives None, so that one command line both starts a run and restarts it.
    """
    if resume is None:
        return None
    if resume != "auto" and not Path(resume).exists() and get_close_matches(resume, ["auto"]):
        raise UsageError(f"--resume {resume}: there is no such file: did you mean auto?")
    path = find_latest(output or root) if resume == "auto" else Path(resume)
    if path is None:
        return None
    path = path / "last.h5" if path.is_dir() else path
    return Resumed(path, *load_run(path))


def refuse_changes(resumed: Resumed, config: Config, digest: str) -> None:
    """Raises UsageError for a setting, but those of ``FREE`` and [run], or data that differ from the checkpoint's."""
    before, now = resumed.config.flat(), config.flat()
    for name in before | now:
        if before.get(name) != now.get(name) and name not in FREE and not name.startswith("run."):
            raise UsageError(
                f"{resumed.path} was trained with {name} = {before.get(name)!r}, not {now.get(name)!r}: "
                "keep the setting, or add --force to go on regardless"
            )
    if resumed.checkpoint.dataset_digest != digest:
        raise UsageError(
            f"{resumed.path} was trained on other images (digest {resumed.checkpoint.dataset_digest[:12]}..., "
            f"here {digest[:12]}...): use the same data set, or add --force to go on regardless"
        )
