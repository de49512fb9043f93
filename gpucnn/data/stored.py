"""Images that stay in a file: arrays of HDF5 whose rows are read when they are asked for, and the writer of such files.

The values of an array lie in one piece, uncompressed (HDF5 calls the layout contiguous).  HDF5 is asked where, and
after that a row is read at its place by ``os.preadv``: nothing is mapped, so a file that shrinks is an error and not a
crash, several threads may read at once, and the interpreter is free for others while the system reads.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.errors import DataError, UsageError
from gpucnn.files import open_regular
from gpucnn.types import Array, Shape

MIB = 2**20
CHUNK = 4 * MIB  # bytes of images that are looked at or copied at once
AHEAD = 3  # batches that are read before they are asked for
MOST_BUFFERS = 1024  # that one call of the system fills
LIMIT = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


class StoredImages:
    """An array (N,H,W,C) in an HDF5 file, or some of its images: what ``Dataset`` takes in place of one in memory.

    An index, a slice, or an array of indices or bools over the first axis reads those images, in any order, into a new
    array; ``np.asarray`` reads all of them.  Copies, views and pickles hold the file's name, not the file, which is
    open only while it is read.

    Args:
        path: of the file.
        name: of the array in it, as "train/images".

    Attributes:
        shape, dtype, ndim, size, nbytes: as of an array.

    Raises:
        DataError: there is no such file or array, its values are not in one piece, or, when it is read, the file is
            gone, shorter than it was, or another one.
    """

    ndim = 4

    def __init__(self, path: str | os.PathLike[str], name: str = "images") -> None:
        import h5py  # here, since importing gpucnn brings in nothing heavy

        self.path, self.name = Path(path).absolute(), name
        self.places: Array | None = None  # int64 (N,): which of the file's images, in which order; None: all of them
        try:
            with open_regular(self.path) as opened, h5py.File(opened, "r") as file:  # opened by Python: no locks
                found = file.get(name)
                if not isinstance(found, h5py.Dataset) or found.ndim != self.ndim:
                    raise DataError(f"{self.path} has no array {name!r} of images (N, H, W, C)")
                self.offset, self.dtype = found.id.get_offset(), np.dtype(found.dtype)
                self.shape: Shape = found.shape
        except OSError as error:
            raise self.unreadable(error) from None
        if self.offset is None or found_elsewhere(self.dtype):
            raise DataError(
                f"{name!r} in {self.path} is compressed, in chunks, outside of the file, or not uint8 or float32: "
                "copy it by gpucnn.data.stored.spill(), which gives images that can be read one by one"
            )
        self.signature = self.signed(os.stat(self.path))
        if self.signature[0] < self.offset + self.nbytes:
            raise DataError(f"{self.path} is shorter than {name!r} in it: it was not written to its end")

    def unreadable(self, error: OSError) -> DataError:
        """The error about a file that cannot be read."""
        reason = error.strerror or " ".join(str(error).split())
        return DataError(f"cannot read images from {self.path}: {reason}: put the file back, or make it again")

    @staticmethod
    def signed(found: os.stat_result) -> tuple[int, int]:
        """What another file of this name would have different: length, time of the last change."""
        return found.st_size, found.st_mtime_ns

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        return int(prod(self.shape))

    @property
    def nbytes(self) -> int:
        return self.size * int(self.dtype.itemsize)

    def __repr__(self) -> str:
        return f"StoredImages({str(self.path)!r}, {self.name!r}): {self.dtype} {self.shape}"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError("images in a file become an array by reading them: leave out copy=False")
        whole = self[:]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def __getitem__(self, key: Any) -> Array:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis or first is None:
            raise UsageError(f"images in {self.path} are read by an index, a slice or an array of them over axis 0")
        index = np.arange(len(self))[first]
        with self.reading() as read:
            images = read(np.ravel(index))
        found = images.reshape(np.shape(index) + self.shape[1:])
        return found[(slice(None),) * np.ndim(index) + tuple(rest)] if rest else found

    def select(self, places: Array | slice) -> "StoredImages":
        """Images ``places``, a slice, indices (M,) or bools (N,), as a view that reads nothing."""
        view = object.__new__(StoredImages)
        vars(view).update(vars(self))
        view.places = np.arange(len(self))[places] if self.places is None else self.places[places]
        view.shape = (len(view.places), *self.shape[1:])
        return view

    @contextmanager
    def reading(self) -> Iterator[Callable[[Array], Array]]:
        """Hold the file open; gives a function: integers (B,) in 0 .. N - 1 -> those images, a new array (B,H,W,C)."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self.unreadable(error) from None
        try:
            if self.signed(os.fstat(file)) != self.signature:
                raise DataError(f"{self.path} has changed since it was opened: start again with what it holds now")
            yield lambda index: self.read(file, index)
        finally:
            os.close(file)

    def read(self, file: int, index: Array) -> Array:
        """Images ``index`` (B,) from an open file: in the order of the file, neighbours at once."""
        places = index if self.places is None else self.places[index]
        images = np.empty((len(places), *self.shape[1:]), self.dtype)
        row = prod(self.shape[1:]) * self.dtype.itemsize  # bytes of an image
        if not len(places):
            return images
        memory = images.data.cast("B")
        order = np.argsort(places, kind="stable")
        ends = np.flatnonzero(np.diff(places[order]) != 1) + 1  # where a run of neighbours ends
        ordered, numbers = places[order].tolist(), order.tolist()
        start = 0
        for end in (*ends.tolist(), len(places)):
            for first in range(start, end, MOST_BUFFERS):
                targets = numbers[first : min(first + MOST_BUFFERS, end)]
                buffers = [memory[target * row : (target + 1) * row] for target in targets]
                self.fill(file, self.offset + ordered[first] * row, buffers, row)
            start = end
        return images

    def fill(self, file: int, offset: int, buffers: list[memoryview], row: int) -> None:
        """Read what lies at an offset into buffers of ``row`` bytes each."""
        wanted = row * len(buffers)
        try:
            found = os.preadv(file, buffers, offset)
            while 0 < found < wanted:  # the system may stop early, as after 2 GiB
                whole, part = divmod(found, row)
                more = os.preadv(file, [buffers[whole][part:], *buffers[whole + 1 :]], offset + found)
                found = found + more if more else 0
        except OSError as error:
            raise self.unreadable(error) from None
        if found != wanted:
            raise DataError(f"{self.path} is shorter than when it was opened: make it again")


def found_elsewhere(dtype: Any) -> bool:
    """Whether values of this dtype are not bytes or floats as the machine has them."""
    return dtype not in (np.dtype("uint8"), np.dtype("float32"))


class StoredWriter:
    """Writes arrays to a new HDF5 file, which has its name only when it is complete.

        with StoredWriter("set.h5") as writer:
            append = writer.images("images", (60000, 32, 32, 3))
            for some in batches:
                append(some)
            writer.array("labels", labels)
        images = StoredImages("set.h5", "images")

    If the block ends by an exception, nothing is left of it; a file that had the name before stays.

    Raises:
        DataError: the file cannot be written, or an array got another number of images than was said.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self.missing: dict[str, int] = {}  # images that are still to be appended

    def __enter__(self) -> "StoredWriter":
        import h5py

        self.draft = self.path.with_name(f".{self.path.name}.{os.urandom(4).hex()}.tmp")
        with self.explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.file = h5py.File(self.draft, "x", libver=("earliest", "v108"))
        return self

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Let the system's errors say which file it is."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or " ".join(str(error).split())
            raise DataError(f"cannot write images to {self.path}: {reason}") from None

    def images(self, name: str, shape: Shape, dtype: str = "uint8") -> Callable[[Array], None]:
        """Begin an array (N,H,W,C) of uint8 or float32; gives a function that appends some images (B,H,W,C)."""
        import h5py

        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.CONTIGUOUS)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        layout.set_obj_track_times(False)
        with self.explained():
            group = self.file.require_group(name.rpartition("/")[0] or "/")
            kind, space = h5py.h5t.py_create(np.dtype(dtype)), h5py.h5s.create_simple(shape)
            array = h5py.Dataset(h5py.h5d.create(group.id, name.rpartition("/")[2].encode(), kind, space, layout))
        self.missing[name] = shape[0]

        def append(some: Array) -> None:
            start = shape[0] - self.missing[name]
            if some.shape[1:] != shape[1:] or some.dtype != array.dtype or len(some) > self.missing[name]:
                raise DataError(
                    f"{name!r} in {self.path} got {some.dtype} {some.shape} after {start} of {dtype} {shape}: "
                    "give images of one kind, as many as were said"
                )
            with self.explained():
                array[start : start + len(some)] = some
            self.missing[name] -= len(some)

        return append

    def array(self, name: str, values: Array) -> None:
        """A whole array, as labels."""
        with self.explained():
            self.file.create_dataset(name, data=values, track_times=False)

    def attributes(self, values: Mapping[str, Any]) -> None:
        """Texts and numbers of the file."""
        with self.explained():
            self.file.attrs.update(values)

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            with self.explained():
                self.file.close()
            if kind is not None:
                return
            if lacking := {name: count for name, count in self.missing.items() if count}:
                name, count = lacking.popitem()
                raise DataError(f"{name!r} in {self.path} lacks its last {count} images: append as many as were said")
            with self.explained():
                descriptor = os.open(self.draft, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                os.replace(self.draft, self.path)
        finally:
            self.draft.unlink(missing_ok=True)


def slices(images: Any) -> Iterator[Array]:
    """All images in order, some MiB at a time."""
    step = max(1, CHUNK // max(1, prod(images.shape[1:]) * images.dtype.itemsize))
    for start in range(0, len(images), step):
        yield images[start : start + step]


def spill(images: Any, path: str | os.PathLike[str], name: str = "images") -> StoredImages:
    """Copy images (N,H,W,C) to a new file, some at a time.

    Args:
        images: uint8 or float; an array, ``StoredImages``, an h5py data set: what can be sliced.

    Returns:
        The same in the file, for ``dataclasses.replace(dataset, images=...)``.
    """
    dtype = "uint8" if images.dtype == np.uint8 else "float32"
    with StoredWriter(path) as writer:
        append = writer.images(name, tuple(images.shape), dtype)
        for some in slices(images):
            append(some.astype(dtype, copy=False))
    return StoredImages(path, name)


@contextmanager
def read_ahead(images: Any, batches: Iterable[Array]) -> Iterator[Iterator[Array]]:
    """Images (B,H,W,C) of each of the indices (B,) ``batches``, read by another thread while the caller works.

    It is up to ``AHEAD`` batches ahead.  At the end of the block, however it ends, thread and file are closed.

    Args:
        images: ``StoredImages``, or an array.
    """
    reading = images.reading() if isinstance(images, StoredImages) else nullcontext(images.__getitem__)
    with reading as read:
        pool = ThreadPoolExecutor(1, "gpucnn reads images")

        def results() -> Iterator[Array]:
            waiting: deque[Future[Array]] = deque()
            for index in batches:
                waiting.append(pool.submit(read, index))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        try:
            yield results()
        finally:
            pool.shutdown(cancel_futures=True)


def within(images: Any, limit: int) -> Any:
    """Images as they are best used under a limit in bytes: in memory if they fit, else in their file.

    What is in memory already stays there.
    """
    return images[:] if isinstance(images, StoredImages) and images.nbytes <= limit else images


def free_memory() -> int:
    """Bytes of main memory that may still be used, here and in this container."""
    text = Path("/proc/meminfo").read_text() if Path("/proc/meminfo").exists() else ""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if "MemAvailable" in lines:
        free = int(lines["MemAvailable"].split()[0]) * 1024
    else:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    try:
        most, used = (int(path.read_text()) for path in LIMIT)
    except (OSError, ValueError):  # no container, or one without a limit
        return free
    return max(0, min(free, most - used))
