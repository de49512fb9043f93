"""Folders of image files, a sub-folder per class: listed, decoded on all cores, and kept decoded in the cache.

    flowers/rose/1.jpg          flowers/train/rose/1.jpg
    flowers/tulip/2.png         flowers/test/tulip/2.png       and flowers/validation, or val, or valid

A class is called like its folder; classes are sorted, and so are the images of each, by their names.  Hidden files,
and files whose names do not end as an image's, are passed over.  A link to what lies outside of the folder is refused.
"""

import hashlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from math import prod
from pathlib import Path
from statistics import median_low
from typing import Any, NamedTuple, TypeVar

import numpy as np

from gpucnn.data.dataset import Dataset
from gpucnn.data.decoded import Asked, Cache, Kept, about
from gpucnn.data.image_files import SUFFIXES, decode, fit, probe, without_warnings
from gpucnn.data.reading import DEFAULT_SIDE, LARGEST_SIDE, Parts, Reading
from gpucnn.data.stored import StoredWriter, free_memory
from gpucnn.errors import DataError, closest, shown
from gpucnn.settings import CONTROL, LONGEST_TEXT
from gpucnn.terminal import harmless, is_terminal, tell
from gpucnn.types import Array, Shape

T = TypeVar("T")

PART_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""A folder's name -> the part of the set in it."""

NO_CLASSES = ("__macosx",)
UNREAD = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".psd", ".raw", ".dng", ".ppm", ".pgm", ".svg", ".pdf")
DEEPEST = 20  # folders below a class's
CHUNK = 2**26  # bytes of images that are decoded at once
FEW = 16  # images that a thread takes at a time
QUIET = 2000  # images that are decoded without a word where there is no terminal
NAMED = 3  # broken files in a message


class Picture(NamedTuple):
    """An image file: its path below the set's folder, its label, and what changes with its contents."""

    path: str
    label: int
    state: tuple[int, ...]


@dataclass
class Folder:
    """What was found in a folder.

    Attributes:
        parts: "train", and "validation" and "test" where they are there -> their images.
        broken: what is called like an image but cannot be one -> the reason.
        ignored: ending of a name (".txt") -> how many files were passed over.
    """

    root: Path
    classes: tuple[str, ...] = ()
    parts: dict[str, list[Picture]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        return self.root.resolve().name or "images"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the classes and of all images' paths, sizes and times."""
        found = hashlib.sha256(repr(self.classes).encode(errors="surrogateescape"))
        for part, pictures in self.parts.items():
            for picture in pictures:
                found.update(repr((part, picture)).encode(errors="surrogateescape"))
        return found.hexdigest()


def load_folder(path: Path, how: Reading) -> Parts:
    """The images of a folder, from the cache where they were decoded before.

    Raises:
        DataError: no images, a class without any, files that cannot be read, or a class that a model does not have.
    """
    found = scan(path, how.classes)
    parts, broken = load_listed(found, how)
    if broken and how.progress:
        tell(f"{found.name}: left out {told(broken, parts)}")
    return parts


def scan(root: Path, classes: Sequence[str] = ()) -> Folder:
    """List a folder: no image is opened.

    Args:
        classes: of a model, which the folder's must be among.
    """
    found = Folder(root)
    inside = os.path.realpath(root)
    parts = part_folders(root)
    known = tuple(classes) or tuple(sorted(class_folders(parts["train"])))
    labels = {name: label for label, name in enumerate(known)}
    for name in known:
        if len(name) > LONGEST_TEXT or CONTROL.search(name):
            raise DataError(f"{root}: {shown(name)} is no name for a class: give the folder another name")
    for part, folder in parts.items():
        pictures = found.parts[part] = []
        for name in sorted(class_folders(folder)):
            if name not in labels:
                whose = "the model" if classes else "the training part"
                raise DataError(f"{folder / name}: {whose} has no class {name!r}{closest(name, known)}")
            label, before = labels[name], len(pictures)
            pictures += sorted(walk(found, inside, (folder / name).relative_to(root).as_posix(), label))
            if part == "train" and len(pictures) == before and not classes:
                raise DataError(f"{folder / name} has no images: remove it, or put images of its class there")
        if not pictures and part != "train":
            raise DataError(f"{folder} has no images: remove it, or put images of each class there")
    if not found.parts["train"]:
        raise DataError(
            f"{root} has no images: give a folder with a sub-folder of images for each class, as {root / 'cat'}, or "
            f"with {root / 'train'} and {root / 'test'} of such; images are {', '.join(SUFFIXES)}"
        )
    found.classes = known
    return found


def part_folders(root: Path) -> dict[str, Path]:
    """The parts of a set and their folders; one whose folders are classes is all for training."""
    parts: dict[str, Path] = {}
    for name in sorted(class_folders(root)):
        part = PART_NAMES.get(name.lower())
        if part and class_folders(root / name):
            if part in parts:
                raise DataError(f"{root}: {parts[part].name} and {name} are both the {part} part: leave one of them")
            parts[part] = root / name
    if parts and "train" not in parts:
        raise DataError(f"{root} has {', '.join(folder.name for folder in parts.values())}, but no folder train")
    return {part: parts[part] for part in ("train", "validation", "test") if part in parts} or {"train": root}


def class_folders(root: Path) -> list[str]:
    """Names of the folders in one, without hidden ones; raises DataError where it cannot be listed."""
    return [entry.name for entry in entries(root) if entry.is_dir() and entry.name.lower() not in NO_CLASSES]


def entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden."""
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot list {folder}: {error.strerror or error}") from None


def walk(found: Folder, inside: str, below: str, label: int = 0, depth: int = 0) -> Iterator[Picture]:
    """The image files in a folder and below it, in no order.

    Args:
        found: gets what is broken or ignored.
        inside: the real path of its root, which links must not leave.
        below: the folder's path, below the root; "" for the root itself.
    """
    folder = os.path.join(found.root, below)
    if depth > DEEPEST:
        raise DataError(f"{folder}: more than {DEEPEST} folders in each other: put images nearer to their class")
    for entry in entries(folder):
        path = f"{below}/{entry.name}" if below else entry.name
        if entry.is_symlink():
            target = os.path.realpath(entry.path)
            if not target.startswith(f"{inside}{os.sep}") or entry.is_dir():
                where = "a folder" if entry.is_dir() else "what lies outside of the set's folder"
                found.broken[path] = f"a link to {where}: put the file itself there"
                continue
        if entry.is_dir():
            yield from walk(found, inside, path, label, depth + 1)
        elif not entry.name.lower().endswith(SUFFIXES):
            found.ignored[os.path.splitext(entry.name)[1].lower() or entry.name] += 1
        else:
            try:
                status = entry.stat()
            except OSError as error:
                found.broken[path] = error.strerror or str(error)
                continue
            if stat.S_ISREG(status.st_mode):
                state = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
                yield Picture(path, label, state)
            else:
                found.broken[path] = "not a regular file"


def images_below(folder: Path) -> list[Path]:
    """The image files in a folder and below it, sorted by their paths."""
    found = Folder(folder)
    paths = [picture.path for picture in walk(found, os.path.realpath(folder), "")]
    return [folder / path for path in sorted([*paths, *found.broken])]


def load_listed(found: Folder, how: Reading) -> tuple[Parts, dict[str, str]]:
    """The images of a folder that was listed, and the broken files that were left out."""
    cache = Cache.of(found.root, found.name, found.classes, found.digest)
    limit = how.memory or free_memory() // 2
    asked = (how.size, how.channels, how.fit)
    kept = cache.load(asked, limit) if cache else None
    if kept is None:
        with without_warnings():
            kept = Decoder(found, how, limit).run(cache, asked)
    parts, broken = kept
    broken = found.broken | broken
    if broken and not how.skip_broken:
        what = told(broken, Parts(**parts))
        raise DataError(f"{found.root}: {what}: mend or remove them, or leave them out with --skip-broken")
    return Parts(**parts), broken


def told(broken: dict[str, str], parts: Parts) -> str:
    """How many images cannot be read, and the first of them with the reasons."""
    names = sorted(broken)
    some = "; ".join(f"{name}: {broken[name]}" for name in names[:NAMED])
    more = f"; and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    total = len(names) + sum(len(part) for part in parts if part is not None)
    return f"{len(names):,} of {total:,} images that cannot be read: {some}{more}"


def chosen_size(shapes: Counter[Shape], name: str, fit: str) -> tuple[tuple[int, int], str]:
    """The (H, W) that images of several sizes are given, and why, in words; "" where they have it.

    It is a square, as high as the median of their short sides, at most ``DEFAULT_SIDE``.
    """
    sizes = sorted({(height, width) for height, width, _ in shapes})
    if len(sizes) == 1 and max(sizes[0]) <= LARGEST_SIDE:
        return sizes[0], ""
    side = min(median_low(chain.from_iterable([min(s[:2])] * n for s, n in shapes.items())), DEFAULT_SIDE)
    smallest, largest = (edge(sizes, key=lambda size: (prod(size), size)) for edge in (min, max))
    span = f"of {smallest[0]} x {smallest[1]}"
    if len(sizes) > 1:
        span = f"of {len(sizes):,} sizes, {smallest[0]} x {smallest[1]} to {largest[0]} x {largest[1]}"
    way = {"crop": "cut to the middle and ", "pad": "padded and ", "stretch": ""}[fit]
    return (side, side), (
        f"{name}: images {span} (height x width) are {way}resized to {side} x {side}: --size HxW and --fit choose"
    )


class Decoder:
    """Makes arrays of the image files of a folder.

    Args:
        limit: bytes beyond which images go to a file.
    """

    def __init__(self, found: Folder, how: Reading, limit: int) -> None:
        self.found, self.how, self.limit = found, how, limit
        self.threads = how.threads or os.cpu_count() or 1
        self.broken: dict[str, str] = {}

    def run(self, cache: Cache | None, asked: Asked) -> Kept:
        """The parts, and the files that cannot be read; kept in the cache where there is one."""
        found, how = self.found, self.how
        count = sum(map(len, found.parts.values()))
        self.tell_about(count)
        size, channels = how.size, how.channels
        if not size or not channels:
            shapes = self.shapes()
            if not shapes:
                raise DataError(f"{found.root}: none of its {count:,} images can be read: {self.first_reason()}")
            if not size:
                size, note = chosen_size(shapes, found.name, how.fit)
                if note and how.progress:
                    tell(note)
            channels = channels or max(channels for *_, channels in shapes)
        shape, resolved = (*size, channels), (tuple(size), channels, how.fit)
        if cache and resolved != asked and (kept := cache.load(resolved, self.limit)):
            cache.link(asked, resolved)
            return kept
        if count * prod(shape) <= self.limit:
            with self.bar("decoding") as bar:
                kept = self.in_memory(shape, bar), self.broken
            if cache:
                cache.keep(resolved, *kept)
        elif cache is None:
            raise DataError(
                f"{found.root}: {count:,} images of {' x '.join(map(str, shape))} are more than memory may take "
                f"({self.limit / 2**30:.1f} GiB), and this user has no home to keep them decoded in: give a smaller "
                "--size, or XDG_CACHE_HOME"
            )
        else:
            cache.prepare(resolved)
            whole = False
            while not whole:
                with self.bar("decoding") as bar:
                    whole = self.spill(cache.path(resolved), shape, bar)
            kept = cache.load(resolved, self.limit)
            if kept is None:
                raise DataError(f"{cache.path(resolved)} was damaged or removed while it was made: start again")
        if cache and resolved != asked:
            cache.link(asked, resolved)
        return kept

    def tell_about(self, count: int) -> None:
        """What is decoded, where no bar says it, and which files look like images that are not read."""
        if self.how.progress and count > QUIET and not is_terminal(sys.stderr):
            tell(f"decoding {count:,} images of {self.found.name}")
        unread = {ending: n for ending, n in self.found.ignored.items() if ending in UNREAD}
        if self.how.progress and unread:
            some = words(unread)
            tell(f"{self.found.name}: passed over {some}: of these formats none is read, make JPEG or PNG of them")

    def first_reason(self) -> str:
        return next(iter(self.broken.values()), "")

    def pictures(self, part: str) -> list[Picture]:
        """The images of a part that were not found to be broken."""
        return [picture for picture in self.found.parts[part] if picture.path not in self.broken]

    def shapes(self) -> Counter[Shape]:
        """(H, W, C) of all images -> how many have it."""
        pictures = list(chain.from_iterable(self.found.parts.values()))
        with self.bar("reading sizes of") as bar:
            found = self.each(pictures, lambda place, path: probe(path), bar)
            return Counter(shape for shape in found if shape is not None)

    def bar(self, doing: str) -> Any:
        """A progress bar over all images, on a terminal."""
        from tqdm import tqdm

        silent = not (self.how.progress and is_terminal(sys.stderr))
        total = sum(map(len, self.found.parts.values()))
        return tqdm(
            total=total, desc=f"{doing} {harmless(self.found.name, 30)}", unit=" images", leave=False, disable=silent
        )

    def each(self, pictures: Sequence[Picture], function: Callable[[int, Path], T], bar: Any) -> Iterator[T | None]:
        """What a function makes of (place, path) of each image, in order, by threads; None where it is broken."""

        def some(numbered: Sequence[tuple[int, Picture]]) -> list[tuple[T | None, str]]:
            answers: list[tuple[T | None, str]] = []
            for place, picture in numbered:
                path = self.found.root / picture.path
                try:
                    answers.append((function(place, path), ""))
                except DataError as error:
                    answers.append((None, str(error).removeprefix(f"{path} is ").removeprefix(f"{path}: ")))
            return answers

        pool = ThreadPoolExecutor(self.threads)
        try:
            groups = batched(enumerate(pictures), FEW)
            for several in batched(groups, 64 * self.threads):  # no more of them wait
                for group, answers in zip(several, pool.map(some, several), strict=True):
                    for (_, picture), (answer, reason) in zip(group, answers, strict=True):
                        if reason:
                            self.broken[picture.path] = reason
                        yield answer
                    bar.update(len(group))
        finally:
            pool.shutdown(cancel_futures=True)

    def fill(self, images: Array, pictures: Sequence[Picture], bar: Any) -> Array:
        """Decode images into an array (N,H,W,C); which of them could be read, bool (N,)."""
        shape = images.shape[1:]

        def put(place: int, path: Path) -> bool:
            image, _ = decode(path)
            images[place] = fit(image, shape, self.how.fit)[0]
            return True

        return np.array([bool(good) for good in self.each(pictures, put, bar)], dtype=bool)

    def in_memory(self, shape: Shape, bar: Any) -> dict[str, Dataset]:
        """All parts as arrays."""
        parts = {}
        for part in self.found.parts:
            pictures = self.pictures(part)
            images = np.empty((len(pictures), *shape), dtype=np.uint8)
            good = self.fill(images, pictures, bar)
            labels = np.array([picture.label for picture in pictures], dtype=np.int64)
            if not good.any():
                raise DataError(f"{self.found.root}: no image of {part} can be read: {self.first_reason()}")
            if not good.all():
                images, labels = images[good], labels[good]
            parts[part] = Dataset(self.found.name, images, labels, self.found.classes)
        return parts

    def spill(self, path: Path, shape: Shape, bar: Any) -> bool:
        """Decode all parts into a file, some at a time; False where images were broken, which leaves no file."""
        known, found = len(self.broken), self.found
        size = max(1, CHUNK // prod(shape))
        with suppress(Again), StoredWriter(path) as writer:
            digests = {}
            for part in found.parts:
                pictures = self.pictures(part)
                if not pictures:
                    raise DataError(f"{found.root}: no image of {part} can be read: {self.first_reason()}")
                append = writer.images(f"{part}/images", (len(pictures), *shape))
                digest = hashlib.sha256(repr((len(pictures), *shape)).encode())  # as ``Dataset.digest``
                block = np.empty((min(size, len(pictures)), *shape), dtype=np.uint8)
                for some in batched(pictures, size):
                    self.fill(block[: len(some)], some, bar)
                    append(block[: len(some)])
                    digest.update(block[: len(some)].data)
                labels = np.array([picture.label for picture in pictures])
                labels = labels.astype(np.uint8 if len(found.classes) <= Dataset.BYTES else np.int32)
                digest.update(labels.data)
                digests[part] = digest.hexdigest()
                writer.array(f"{part}/labels", labels)
            if len(self.broken) > known:
                raise Again
            writer.array("about", about(digests, self.broken))
        return len(self.broken) == known


class Again(Exception):
    """Images turned out to be broken while a file was written."""


def batched(items: Iterable[T], count: int) -> Iterator[list[T]]:
    """Lists of ``count`` items, the last one of fewer."""
    rest = iter(items)
    while some := list(islice(rest, count)):
        yield some


def words(counts: dict[str, int]) -> str:
    """The most frequent keys of some counts: ".heic (12), .txt (3)"."""
    some = Counter(counts).most_common(NAMED)
    return ", ".join(f"{harmless(key, 20)} ({count:,})" for key, count in some)
