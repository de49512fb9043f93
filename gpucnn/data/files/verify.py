"""Compares the files on this machine with the publisher's, for ``gpucnn data verify``; loading does not.

Three answers: the publisher's bytes (the published file, or the same content gzipped anew); the publisher's images
(all of them with their labels, split as published, in another order or format); or other, well-formed bytes.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gpucnn.data.dataset import Dataset
from gpucnn.data.files.sources import RemoteFile, Source, open_bytes

BYTES = "publisher's bytes"
IMAGES = "publisher's images, in other bytes"
OTHER = "other bytes (well-formed)"


@dataclass(frozen=True)
class Verdict:
    """One file: its path, its size in bytes, and one of the three answers."""

    path: Path
    size: int
    answer: str


def verify(source: Source, place: Path) -> list[Verdict]:
    """One verdict per file of the data set found at ``place``.

    Raises:
        DataError: the data set cannot be read at all.
    """
    sets = source.load(place)
    known = {Path(file.path).name: file for file in (*source.remote, *source.known)}
    same_images = bool(source.images) and digest_of_images(sets) == source.images
    verdicts = []
    for path in source.files(place):
        file = known.get(path.name) or known.get(f"{path.name}.gz")
        as_published = file is not None and has_published_bytes(path, file)
        verdicts.append(Verdict(path, path.stat().st_size, BYTES if as_published else IMAGES if same_images else OTHER))
    return verdicts


def has_published_bytes(path: Path, file: RemoteFile) -> bool:
    """Whether a file, or its content where it is gzipped, has the publisher's SHA-256."""
    with path.open("rb") as raw, open_bytes(path) as content:
        if hashlib.file_digest(raw, "sha256").hexdigest() == file.sha256:
            return True
        return file.content_sha256 != "" and hashlib.file_digest(content, "sha256").hexdigest() == file.content_sha256


def digest_of_images(sets: tuple[Dataset, Dataset]) -> str:
    """SHA-256 over the images, each (H,W,C) and its label, of a training and a test set in any order."""
    digest = hashlib.sha256()
    for dataset in sets:
        digest.update(f"{dataset.images.shape}".encode())
        labelled = zip(dataset.images, dataset.labels, strict=True)
        for one in sorted(hashlib.sha256(image.tobytes() + label.tobytes()).digest() for image, label in labelled):
            digest.update(one)
    return digest.hexdigest()
