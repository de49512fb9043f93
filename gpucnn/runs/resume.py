"""Going on with an earlier run: find its checkpoint, and refuse to go on as a different run."""

from dataclasses import asdict, dataclass
from pathlib import Path

from gpucnn.checkpoint import Checkpoint, load_checkpoint
from gpucnn.runs.config import Config
from gpucnn.errors import UsageError
from gpucnn.runs.directory import find_latest
from gpucnn.runs.state import expected_tensors

FREE = {"train.epochs", "train.patience", "train.tta"}
"""Settings that may change on the way: how long to go on, and what is looked at in the end."""


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
    if resume == "auto":
        path = find_latest(output or root)
        if path is None:
            return None
    else:
        path = Path(resume)
        path = path / "last.h5" if path.is_dir() else path
    checkpoint = load_checkpoint(path, expected_tensors)
    return Resumed(path, checkpoint, Config.from_toml(checkpoint.config, str(path)))


def refuse_changes(resumed: Resumed, config: Config, digest: str) -> None:
    """Raises UsageError where the run would no longer be the one that was checkpointed."""
    before, now = asdict(resumed.config), asdict(config)
    for section in (name for name in before if name != "run"):
        for key, value in before[section].items():
            if value != now[section][key] and f"{section}.{key}" not in FREE:
                raise UsageError(
                    f"{resumed.path} was trained with {section}.{key} = {value!r}, not {now[section][key]!r}: "
                    "keep the setting, or add --force to go on regardless"
                )
    if resumed.checkpoint.dataset_digest != digest:
        raise UsageError(
            f"{resumed.path} was trained on other images (digest {resumed.checkpoint.dataset_digest[:12]}..., "
            f"here {digest[:12]}...): use the same data set, or add --force to go on regardless"
        )
