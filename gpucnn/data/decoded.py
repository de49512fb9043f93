"""Decoded images in the cache: one HDF5 file for a folder as it is and for how its images are read.

    train/images   uint8 (N,H,W,C), in one piece     "validation" and "test" likewise
    train/labels   (N,)
    about          JSON: the digest of each part, and the files that could not be read

Files lie in ``~/.cache/gpucnn/decoded`` (or below XDG_CACHE_HOME).  A name has the digest of the folder's path, of its
images' names, sizes and times, and how they were read, so a folder that has changed has another file.  A file whose
contents do not match their digests is removed.  Nothing here is needed: what cannot be kept is decoded again.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpucnn.data.dataset import Dataset
from gpucnn.data.stored import StoredImages, StoredWriter, within
from gpucnn.errors import DataError
from gpucnn.terminal import tell
from gpucnn.types import Array

MOST_KEPT = 4  # files for one folder: as it was, and as it was read before

Kept = tuple[dict[str, Dataset], dict[str, str]]
"""The parts of a set, and its broken files with the reasons."""

Asked = tuple[tuple[int, ...], int, str]
"""(size, channels, fit), as in ``Reading``."""


@dataclass(frozen=True)
class Cache:
    """The place of one folder's decoded images.

    Attributes:
        folder: where the files are.
        prefix: of the names of all files of that folder; ``stem`` of those for what it holds now.
        name, classes: of the data sets.
    """

    folder: Path
    prefix: str
    stem: str
    name: str
    classes: tuple[str, ...]

    @classmethod
    def of(cls, root: Path, name: str, classes: tuple[str, ...], digest: str) -> "Cache | None":
        """The cache for a folder whose contents have a digest; None for a user without a home."""
        try:
            home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        except RuntimeError:
            return None
        prefix = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
        return cls(home / "gpucnn" / "decoded", prefix, f"{prefix}-{digest[:32]}", name, classes)

    def path(self, asked: Asked) -> Path:
        """The file for images that are read in this way."""
        size, channels, fit = asked
        return self.folder / f"{self.stem}-{'x'.join(map(str, size)) or 'own'}-{channels or 'own'}-{fit}.h5"

    def load(self, asked: Asked, limit: int) -> Kept | None:
        """What was kept, in memory where it takes at most ``limit`` bytes; None where there is nothing."""
        path = self.path(asked)
        if not path.exists():
            return None
        import h5py

        try:
            with h5py.File(path, "r", locking=False) as file:
                found = json.loads(file["about"][()].tobytes())
                labels = {part: file[f"{part}/labels"][()] for part in found["digests"]}
            images = {part: StoredImages(path, f"{part}/images") for part in found["digests"]}
            most = limit if sum(one.nbytes for one in images.values()) <= limit else 0
            parts = {}
            for part, digest in found["digests"].items():
                parts[part] = Dataset(self.name, within(images[part], most), labels[part], self.classes)
                if parts[part].digest != digest:
                    raise ValueError("its contents have changed")
        except Exception as error:  # HDF5 raises whatever the damage leads to
            reason = " ".join(str(error).split())
            tell(f"removed damaged decoded images of {self.name}, decoding them again: {path}: {reason}")
            with suppress(OSError):
                path.unlink()
            return None
        return parts, found["broken"]

    def prepare(self, asked: Asked) -> None:
        """Make the folder; remove what killed processes left, and files of this folder that are too many."""
        from gpucnn.checkpoint.durable import clean_leftovers  # whose room brings in h5py

        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            clean_leftovers(self.path(asked))
            files = [path for path in self.folder.glob(f"{self.prefix}-*.h5") if not path.is_symlink()]
            for path in sorted(files, key=lambda path: path.stat().st_mtime)[: 1 - MOST_KEPT]:
                path.unlink()
            for path in self.folder.glob(f"{self.prefix}-*.h5"):
                if not path.exists():  # a link to a file that is gone
                    path.unlink()

    def keep(self, asked: Asked, parts: Mapping[str, Dataset], broken: Mapping[str, str]) -> None:
        """Write the file; where that cannot be, a line says why."""
        self.prepare(asked)
        try:
            with StoredWriter(self.path(asked)) as writer:
                for part, dataset in parts.items():
                    writer.images(f"{part}/images", dataset.images.shape)(dataset.images)
                    writer.array(f"{part}/labels", dataset.labels)
                writer.array("about", about({part: one.digest for part, one in parts.items()}, broken))
        except (DataError, OSError) as error:
            tell(f"{self.name}: the decoded images are not kept: {error}")

    def link(self, asked: Asked, resolved: Asked) -> None:
        """Let a file be found by what was asked for too, where that left something open."""
        with suppress(OSError):
            os.symlink(self.path(resolved).name, self.path(asked))


def about(digests: Mapping[str, str], broken: Mapping[str, str]) -> Array:
    """What a file says of itself, as bytes."""
    return np.frombuffer(json.dumps({"digests": digests, "broken": broken}).encode(), dtype=np.uint8)
