"""``gpucnn data``: list, download and verify data sets."""

import argparse
from collections.abc import Sequence

from gpucnn.cli.columns import columns
from gpucnn.cli.options import add_data_options
from gpucnn.data.files.sources import NO_PLACE, gap, locate, search_places
from gpucnn.data.files.verify import verify
from gpucnn.data.registry import DATASETS, ensure_files, find_source
from gpucnn.errors import DataError
from gpucnn.terminal import quoted, say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    lister = actions.add_parser("list", help="every data set, and where its files are")
    fetcher = actions.add_parser("download", help="download missing data sets, and read them once")
    fetcher.add_argument("names", nargs="+", metavar="NAME", help=f"of {', '.join(with_files())}")
    checker = actions.add_parser("verify", help="read the data sets on this machine, compare SHA-256 sums")
    checker.add_argument("names", nargs="*", metavar="NAME", help="default: all on this machine")
    for action in (lister, fetcher, checker):
        add_data_options(action, download=False)


def run(args: argparse.Namespace) -> int:
    if args.action == "list":
        say(*listing(args.data_dir))
    elif args.action == "verify":
        verify_all(args.names, args.data_dir)
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
