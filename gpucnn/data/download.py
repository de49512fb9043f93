"""Downloads that are either whole and right or not there.

A file is written under a temporary name, its size and SHA-256 are checked, and only then does it appear at its place.
Mirrors are tried in order.
"""

import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from gpucnn.data.files import roots
from gpucnn.errors import DataError

TIMEOUT = 30.0  # s without a byte
CHUNK = 1 << 16


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded: its name, size in bytes, SHA-256 in hex, and the addresses it lies below."""

    name: str
    size: int
    sha256: str
    mirrors: tuple[str, ...]


def fetch(
    remote: Remote,
    folder: str,
    data_dir: str | Path | None = None,
    download: bool = True,
    progress: bool = True,
) -> Path:
    """Download a file into ``folder`` below the first root, and return where it is.

    Raises:
        DataError: downloads are off, or no mirror gave the right file; the message says how to go on offline.
    """
    target = roots(data_dir)[0] / folder / remote.name
    offline = f"put {remote.name} into {target.parent}, or name a folder that has it with --data-dir or GPUCNN_DATA_DIR"
    if not download:
        raise DataError(f"{folder}: {remote.name} is missing and downloads are off: {offline}")
    reasons = []
    for mirror in remote.mirrors:
        try:
            _download(mirror + remote.name, remote, target, progress)
            return target
        except (OSError, HTTPException, ValueError) as error:
            reasons.append(f"{mirror}: {getattr(error, 'reason', None) or error}")
    raise DataError(f"{folder}: no mirror gave {remote.name} ({'; '.join(reasons)}): {offline}")


def _download(address: str, remote: Remote, target: Path, progress: bool) -> None:
    """One attempt; raises OSError or ValueError and leaves nothing behind where it fails."""
    from tqdm import tqdm

    target.parent.mkdir(parents=True, exist_ok=True)
    request = urllib.request.Request(address, headers={"User-Agent": "gpucnn"})
    handle, name = tempfile.mkstemp(prefix=f".{remote.name}.", dir=target.parent)
    try:
        digest, received = hashlib.sha256(), 0
        with (
            os.fdopen(handle, "wb") as file,
            urllib.request.urlopen(request, timeout=TIMEOUT) as response,
            tqdm(
                total=remote.size,
                desc=remote.name,
                unit="B",
                unit_scale=True,
                disable=None if progress else True,
            ) as bar,
        ):
            while chunk := response.read(CHUNK):
                received += len(chunk)
                if received > remote.size:
                    raise ValueError(f"more than the {remote.size:,} bytes expected")
                digest.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
        if received != remote.size:
            raise ValueError(f"{received:,} bytes instead of {remote.size:,}")
        if digest.hexdigest() != remote.sha256:
            raise ValueError(f"SHA-256 {digest.hexdigest()[:12]}... instead of {remote.sha256[:12]}...")
        Path(name).chmod(0o644)
        os.replace(name, target)
    finally:
        Path(name).unlink(missing_ok=True)
