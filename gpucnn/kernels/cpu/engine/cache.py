"""Compiled kernels on disk: which folder may be used, and files that are verified before they are unpickled.

A file of Numba's cache is a pickle, so it is code: whoever can write it runs as the user.  The folder is used only if
it belongs to this user and nobody else may write it.  Each file begins with a SHA-256 of its name and its content; one
that is cut, overwritten or in another's place is removed, and its function is compiled again.  Where no folder can be
used, where the disk is full or can only be read, kernels are compiled in each process.  One line on standard error
says so.
"""

import hashlib
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

from gpucnn import terminal
from gpucnn.files import foreign

DIGEST = hashlib.sha256().digest_size
_told: set[str] = set()


def tell(line: str) -> None:
    """One line on standard error, once a process."""
    if line not in _told:
        _told.add(line)
        terminal.tell(line)


def sources_digest() -> str:
    """Sixteen hex digits of a hash over all kernel sources, Numba's version and Python's."""
    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path | None:
    """Where compiled kernels are kept: ``~/.cache/gpucnn/kernels-HASH``, or below the temporary folder.

    Returns:
        None where neither can be used; a line on standard error says why.
    """
    name = f"kernels-{sources_digest()}"
    reasons: list[str] = []
    for root in roots():
        folder = root / name
        reason = unusable(root, folder)
        if reason is None:
            if reasons and not any(folder.glob("**/*.nbc")):
                tell(f"compiled kernels are kept in {folder}: {'; '.join(reasons)}")
            return folder
        reasons.append(reason)
    tell(f"compiled kernels are not kept: {'; '.join(reasons) or 'this user has no home folder'}")
    return None


def roots() -> Iterator[Path]:
    """The folders of gpucnn in which a cache may lie, the first choice first."""
    with suppress(RuntimeError):  # neither HOME nor an entry in the list of users
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpucnn"
    with suppress(FileNotFoundError):  # no folder for temporary files either
        yield Path(tempfile.gettempdir()) / f"gpucnn-{os.getuid()}"


def unusable(root: Path, folder: Path) -> str | None:
    """Make both folders where they are missing; why they cannot be used, or None where they can."""
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        for path in (root, folder):
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)
            if reason := foreign(path):
                return reason
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))
            probe.flush()
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return None


def sealed(name: str, content: bytes) -> bytes:
    """A file's bytes: the digest of its name and content, then the content."""
    return hashlib.sha256(name.encode() + b"\0" + content).digest() + content


def unsealed(name: str, data: bytes) -> bytes | None:
    """The content of a sealed file; None where it is not what was written under this name."""
    content = data[DIGEST:]
    return content if data == sealed(name, content) else None


class SealedFiles(IndexDataCacheFile):
    """Numba's index and data files, each with its digest in front."""

    def _load_index(self) -> dict[Any, str]:
        found = self._read(self._index_path)
        if found is None:
            return {}
        stamp, overloads = pickle.loads(found)
        return dict(overloads) if stamp == self._source_stamp else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        with self._open_for_write(self._index_path) as file:
            file.write(self._dump((self._source_stamp, overloads)))

    def _load_data(self, name: str) -> Any:
        found = self._read(self._data_path(name))
        return None if found is None else pickle.loads(found)

    def _read(self, path: str) -> bytes | None:
        """The content of a file; None where there is none, or where it is damaged and so removed."""
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError:
            return None
        content = unsealed(self._sealed_name(path), data)
        if content is None:
            tell(f"removed a damaged file of compiled kernels from {self._cache_path}, compiling it again")
            with suppress(OSError):
                os.unlink(path)
        return content

    @contextmanager
    def _open_for_write(self, path: str) -> Iterator[Any]:
        content = BytesIO()
        yield content
        with super()._open_for_write(path) as file:
            file.write(sealed(self._sealed_name(path), content.getvalue()))

    def _sealed_name(self, path: str) -> str:
        """A file's name within the cache, with its folder."""
        return f"{Path(path).parent.name}/{Path(path).name}"


class SealedCache(FunctionCache):
    """A function's cache on sealed files; a disk that cannot be written ends it for this process."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file: Any = SealedFiles(self._cache_path, self._impl.filename_base, stamp)

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            super().save_overload(signature, data)
        except OSError as error:
            tell(f"compiled kernels are not kept: {self._cache_path}: {error.strerror or error}")
            self.disable()
