"""``gpucnn data``: list, download, verify and inspect data sets."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpucnn.cli.columns import columns, counted, sentence
from gpucnn.cli.options import add_data_options, add_setting_flags, writing
from gpucnn.data.dataset import Dataset
from gpucnn.data.files.sources import NO_PLACE, gap, locate, search_places
from gpucnn.data.files.verify import verify
from gpucnn.data.folders import words
from gpucnn.data.inspection import Inspection, inspect
from gpucnn.data.reading import Reading
from gpucnn.data.registry import DATASETS, ensure_files, find_source, title
from gpucnn.devices.cores import thread_count
from gpucnn.errors import DataError, UsageError
from gpucnn.terminal import harmless, quoted, say, say_json

MOST_CLASSES, MOST_SIZES, MOST_NAMED = 40, 5, 10  # that are printed
ROWS, COLUMNS = 40, 10  # of a contact sheet
NAME = 24  # characters of a class name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    lister = actions.add_parser("list", help="every data set, and where its files are")
    fetcher = actions.add_parser("download", help="download missing data sets, and read them once")
    fetcher.add_argument("names", nargs="+", metavar="NAME", help=f"of {', '.join(with_files())}")
    checker = actions.add_parser("verify", help="read the data sets on this machine, compare SHA-256 sums")
    checker.add_argument("names", nargs="*", metavar="NAME", help="default: all on this machine")
    looker = actions.add_parser("inspect", help="counts, sizes, equal images and broken files of a data set")
    looker.add_argument("name", metavar="NAME", help="of a data set, or the path of a folder or file")
    looker.add_argument("--sheet", type=Path, metavar="FILE", help="draw images of each class into this PNG file")
    looker.add_argument("--json", action="store_true", help="one JSON object on standard output")
    add_setting_flags(looker, ("data.size", "data.fit", "data.channels", "run.threads"))
    for action in (lister, fetcher, checker):
        add_data_options(action, download=False)
    add_data_options(looker)


def run(args: argparse.Namespace) -> int:
    if args.action == "list":
        say(*listing(args.data_dir))
    elif args.action == "verify":
        verify_all(args.names, args.data_dir)
    elif args.action == "inspect":
        inspect_one(args)
    else:
        for key, source in map(find_source, args.names):
            if source.built_in:
                say(f"{key}: built in, nothing to download")
            else:
                place = ensure_files(key, args.data_dir, download=True, progress=True)
                train, test = source.load(place)  # reads all of it
                say(f"{key}: {len(train):,} training and {len(test):,} test images in {place}")
    return 0


def with_files() -> list[str]:
    """The data sets that have files."""
    return [name for name, source in DATASETS.items() if not source.built_in]


def listing(data_dir: str | None) -> list[str]:
    """One row per data set, and the places that were searched."""
    rows = [("NAME", "WHAT", "DOWNLOAD", "WHERE")]
    for name, source in DATASETS.items():
        place = locate(source, data_dir)
        lack = gap(source, data_dir)
        where = "built in" if source.built_in else str(place or (f"incomplete: {lack}" if lack else "not here"))
        size = sum(file.size for file in source.remote)
        rows.append((name, source.about, f"{size / 1e6:,.1f} MB" if size else "-", where))
    places = [f"  {place}" for place in search_places(data_dir) or (NO_PLACE,)]
    return [*columns(rows, "<<><"), "", "searched, in this order:", *places]


def verify_all(names: Sequence[str], data_dir: str | None) -> None:
    """Print a verdict per file; then raises DataError if a set is missing or damaged."""
    rows = [("DATA SET", "FILE", "BYTES", "VERDICT")]
    errors = []
    where = f" --data-dir {quoted(data_dir)}" if data_dir else ""
    for name in names or with_files():
        key, source = find_source(name)
        place = locate(source, data_dir)
        if source.built_in:
            rows.append((key, "-", "-", "built in"))
        elif place is None and (lack := gap(source, data_dir)):
            rows.append((key, lack, "-", "INCOMPLETE"))
            errors.append(f"{key} is incomplete: {lack}: put it there, or run gpucnn data download {key}{where}")
        elif place is None:
            rows.append((key, "-", "-", "not here"))
            errors += [f"{key} is not here: run gpucnn data download {key}{where}"] if names else []
        else:
            try:
                rows += [(key, str(v.path), f"{v.size:,}", v.answer) for v in verify(source, place)]
            except DataError as error:
                rows.append((key, str(place), "-", "DAMAGED"))
                errors.append(str(error))
    say(*columns(rows, "<<><"))
    if errors:
        raise DataError("; ".join(errors))


def inspect_one(args: argparse.Namespace) -> None:
    """Print what there is in a data set, and write its contact sheet."""
    if args.sheet and args.sheet.suffix.lower() != ".png":
        raise UsageError(f"--sheet {args.sheet}: give the name of a PNG file, as sheet.png")
    how = Reading(
        size=args.size or (),
        fit=args.fit or "crop",
        channels=args.channels or 0,
        threads=thread_count(args.threads or 0),
    )
    found = inspect(args.name, args.data_dir, how, download=not args.no_download)
    if args.json:
        say_json(as_report(args.name, found))
    else:
        say(*as_lines(args.name, found))
    if args.sheet:
        with writing(args.sheet, "--sheet"):
            draw_sheet(args.sheet, title(args.name), found.parts["train"])
        if not args.json:
            say("", f"sheet   {args.sheet}")


def as_report(name: str, found: Inspection) -> dict[str, Any]:
    """All that was found, for --json."""
    train = found.parts["train"]
    return {
        "dataset": name,
        "shape": train.image_shape,
        "dtype": str(train.images.dtype),
        "classes": found.counts(),
        "sizes": [{"size": shape, "images": count} for shape, count in found.shapes.most_common()],
        "broken": found.broken,
        "passed_over": dict(found.ignored),
        "equal": found.repeats(),
        "equal_images": [[found.name(place) for place in group] for group in found.equal],
    }


def as_lines(name: str, found: Inspection) -> list[str]:
    """What was found, for people."""
    train, parts = found.parts["train"], list(found.parts)
    shape = " x ".join(map(str, train.image_shape))
    classes = f"{train.num_classes:,} class{'' if train.num_classes == 1 else 'es'}"
    lines = sentence("data", f"{name}: images {shape}, {train.images.dtype}, {classes}", 8)
    counts = found.counts()
    rows = [["class", *parts]]
    for one, per_part in list(counts.items())[:MOST_CLASSES]:
        rows.append([harmless(one, NAME), *(f"{per_part[part]:,}" for part in parts)])
    if more := len(counts) - MOST_CLASSES:
        rows += [[f"{more:,} more", *("" for _ in parts)]] if more > 0 else []
    rows.append(["all", *(f"{len(found.parts[part]):,}" for part in parts)])
    lines += ["", *columns(rows, "<>"), ""]
    if found.shapes:
        sizes = [f"{h} x {w} {'grey' if c == 1 else 'colour'} ({n:,})" for (h, w, c), n in found.shapes.most_common()]
        tail = f" and {len(sizes) - MOST_SIZES:,} other sizes" if len(sizes) > MOST_SIZES else ""
        lines += sentence("sizes", f"{', '.join(sizes[:MOST_SIZES])}{tail}", 8)
    if found.ignored:
        lines += sentence("", f"passed over: {words(found.ignored)}", 8)
    repeats = ", ".join(f"{count:,} {where}" for where, count in found.repeats().items())
    lines += sentence("equal", repeats or "no two images are the same", 8)
    worst = sorted(found.equal, key=lambda group: len({part for part, _ in group}) < 2)
    for group in worst[:MOST_NAMED]:
        tail = f" and {len(group) - 3:,} more" if len(group) > 3 else ""
        lines += sentence("", f"{' = '.join(map(found.name, group[:3]))}{tail}", 8)
    if len(worst) > MOST_NAMED:
        lines.append(f"{'':<8}{len(worst) - MOST_NAMED:,} more (--json has all)")
    lines += sentence("broken", counted(len(found.broken), "file") if found.broken else "no files", 8)
    for path, reason in list(found.broken.items())[:MOST_NAMED]:
        lines += sentence("", f"{path}: {reason}", 8)
    return lines


def draw_sheet(path: Path, name: str, train: Dataset) -> None:
    """A row of images for each class, from the first to the last of it."""
    from gpucnn.plots import feature_maps

    height, width, channels = train.image_shape
    if channels not in (1, 3) or train.images.dtype != np.uint8:
        raise UsageError(f"--sheet draws bytes of 1 or 3 channels, {name} has {train.images.dtype} of {channels}")
    shown = min(train.num_classes, ROWS)
    wide = min(COLUMNS, int(np.bincount(train.labels).max()))
    tiles = np.full((wide, shown, height, width, channels), 255, dtype=np.uint8)
    for label in range(shown):
        places = np.flatnonzero(train.labels == label)
        chosen = places[np.unique(np.linspace(0, len(places) - 1, wide).astype(int))] if len(places) else places
        tiles[: len(chosen), label] = train.images[chosen]
    sheet = [feature_maps.Column("", "", column) for column in tiles]
    names = [harmless(one, NAME) for one in train.classes[:shown]]
    note = f"{len(train):,} training images, {height} x {width} x {channels}"
    if shown < train.num_classes:
        note += f", the first {shown} of {train.num_classes:,} classes"
    path.parent.mkdir(parents=True, exist_ok=True)
    feature_maps.save_columns(path, name, note, names, sheet)
