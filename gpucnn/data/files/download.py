"""Downloads that leave either the publisher's whole file at its place, or nothing.

A mirror's answer goes to a temporary file in the same folder, which is renamed if size and SHA-256 are right
(``checkpoint.durable``).
After any other answer (an error page, a short body, other bytes) the next mirror is tried.
"""

import hashlib
import sys
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gpucnn.data.files.sources import RemoteFile
from gpucnn.errors import DataError
from gpucnn.terminal import is_terminal, tell

CHUNK = 256 * 1024
TIMEOUT = 30.0  # seconds without an answer


class MirrorError(Exception):
    """Why a mirror did not give the file."""


def download(file: RemoteFile, folder: Path, *, progress: bool = True) -> Path:
    """Fetch a file to its place below a data directory, unless it is there -> that place.

    Args:
        folder: the data directory; made where it does not exist.
        progress: show a bar on a terminal, a line elsewhere, both on standard error.

    Raises:
        DataError: no mirror gave the file (the message says how to do without a network), or it cannot be written.
    """
    from gpucnn.checkpoint.durable import replace_atomically  # imports h5py

    target = folder / file.path
    if target.exists():
        return target
    reasons = []
    for url in file.mirrors:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_atomically(target, fetch(url, file, progress))
            return target
        except MirrorError as reason:
            reasons.append(f"{urlsplit(url).netloc}: {reason}")
        except OSError as error:
            why = error.strerror or error
            raise DataError(f"cannot write {target}: {why}; name a folder with room with --data-dir") from None
    raise DataError(
        f"no mirror gave {target.name} ({'; '.join(reasons)}): without a network, put that file into "
        f"{target.parent}, name a folder that has it with --data-dir or GPUCNN_DATA_DIR, or use the set "
        f"'digits', which needs no download"
    )


def fetch(url: str, file: RemoteFile, progress: bool) -> Iterator[bytes]:
    """The body of one mirror's answer, block by block; MirrorError where it is not the published file."""
    request = urllib.request.Request(url, headers={"User-Agent": "gpucnn"})
    digest, size = hashlib.sha256(), 0
    try:
        with progress_bar(file, url, progress) as bar, urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if response.headers.get_content_type() == "text/html":
                raise MirrorError("an HTML page")
            length = response.headers.get("Content-Length")
            if length is not None and length != str(file.size):
                raise MirrorError(f"{length} bytes announced instead of {file.size:,}")
            while block := response.read(CHUNK):
                size += len(block)
                if size > file.size:
                    raise MirrorError(f"more than {file.size:,} bytes")
                digest.update(block)
                bar.update(len(block))
                yield block
    except (OSError, HTTPException, ValueError) as error:  # URLError, timeouts, broken connections are OSErrors
        reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        raise MirrorError(" ".join(reason.split())) from None  # one line
    if size != file.size:
        raise MirrorError(f"{size:,} bytes instead of {file.size:,}")
    if digest.hexdigest() != file.sha256:
        raise MirrorError(f"SHA-256 {digest.hexdigest()[:16]}... instead of {file.sha256[:16]}...")


def progress_bar(file: RemoteFile, url: str, progress: bool) -> Any:
    """A progress bar in bytes on a terminal, one line elsewhere."""
    from tqdm import tqdm

    name, terminal = Path(file.path).name, is_terminal(sys.stderr)
    if progress and not terminal:
        tell(f"downloading {name} ({file.size / 1e6:,.1f} MB) from {urlsplit(url).netloc}")
    return tqdm(total=file.size, desc=name, unit="B", unit_scale=True, disable=not (progress and terminal))
