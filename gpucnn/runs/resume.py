"""Resume a run: find its checkpoint, and refuse settings or data that would make it a different run."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from gpucnn.checkpoint import Checkpoint
from gpucnn.errors import UsageError, shown
from gpucnn.runs.config import Config
from gpucnn.runs.directory import CHECKPOINTS, Position, find_latest, position_of, survey
from gpucnn.runs.log import JSONL
from gpucnn.runs.state import load_run

FREE = {"train.epochs", "train.max_steps", "train.patience", "train.tta", "model.plugins"}
"""Settings that may change when a run goes on: how long it trains, the last evaluation, and files that were edited."""


@dataclass(frozen=True)
class Resumed:
    """A checkpoint to go on from."""

    path: Path
    checkpoint: Checkpoint
    config: Config

    @property
    def position(self) -> Position:
        """Where in its run it is."""
        return position_of(self.checkpoint.progress)

    @property
    def folder(self) -> Path:
        """Where the file is; behind a link, where that leads."""
        return (self.path.resolve() if self.path.is_symlink() else self.path).parent

    def elsewhere(self) -> str:
        """Why a run goes on from it in a new folder; "" where it is the newest state of its own."""
        name = self.path.resolve().name if self.path.is_symlink() else self.path.name
        if name not in CHECKPOINTS or not (self.folder / JSONL).exists():
            return f"{self.path} is no checkpoint of a run folder"
        for path, saved in survey(self.folder)[0].items():
            if saved.step > self.position.step:
                return f"{path} is newer ({saved})"
        return ""


def find_resumed(resume: str | None, output: Path | None, root: Path) -> Resumed | None:
    """The checkpoint that ``--resume`` names: a file, a run folder, or 'auto' for the latest run.

    'auto' looks into ``output`` itself where that is given, else for the newest run below ``root``; with nothing to
    go on from it gives None, so that one command line both starts a run and restarts it.
    """
    if resume is None:
        return None
    if resume != "auto" and not Path(resume).exists() and get_close_matches(resume, ["auto"]):
        raise UsageError(f"--resume {resume}: there is no such file: did you mean auto?")
    path = find_latest(output or root) if resume == "auto" else Path(resume)
    if path is None or (resume == "auto" and output and path.parent != output):
        return None
    path = path / "last.h5" if path.is_dir() else path
    return Resumed(path, *load_run(path))


FROM_DATA = ("data.mean", "data.std", "data.classes", "data.pixels", "model.input_shape", "model.num_classes")
"""What other images change; the error is then about them."""


def refuse_changes(resumed: Resumed, config: Config, digest: str, test_digest: str) -> None:
    """Raises UsageError for a setting, but those of ``FREE`` and [run], or data that differ from the checkpoint's.

    The digests are of the training set and of the test set, which checkpoints of earlier versions lack.
    """
    before, now, checkpoint = resumed.config.flat(), config.flat(), resumed.checkpoint
    if not checkpoint.dataset_digest:
        raise UsageError(f"{resumed.path} is of Trainer.save, no run to go on with: start from it by --init")
    free = (*FREE, *(FROM_DATA if checkpoint.dataset_digest != digest else ()))
    for name in before | now:
        if before.get(name) != now.get(name) and name not in free and not name.startswith("run."):
            raise UsageError(
                f"{resumed.path} was trained with {name} = {shown(before.get(name))}, not {shown(now.get(name))}: "
                "keep the setting, or add --force to go on regardless"
            )
    parts = [("trained", checkpoint.dataset_digest, digest)]
    parts += [("tested", checkpoint.test_digest, test_digest)] if checkpoint.test_digest else []
    for verb, wanted, found in parts:
        if wanted != found:
            raise UsageError(
                f"{resumed.path} was {verb} on other images (digest {wanted[:12]}..., here {found[:12]}...): "
                "use the same data set, or add --force to go on regardless"
            )
