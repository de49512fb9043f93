"""Older formats, brought up to date one version at a time.

``MIGRATIONS[v]`` takes (attributes, tree) of version v to version v + 1.  A change of the format adds one row
and a file of the old version to the tests.  Version 1 is the first, so the table is empty.
"""

from collections.abc import Callable, Mapping

from gpucnn.checkpoint.contents import FORMAT_VERSION
from gpucnn.checkpoint.structure import Tree
from gpucnn.errors import CheckpointError

Attributes = Mapping[str, str | int | float]
Migration = Callable[[Attributes, Tree], tuple[Attributes, Tree]]

MIGRATIONS: dict[int, Migration] = {}


def migrate(attributes: Attributes, tree: Tree) -> tuple[Attributes, Tree]:
    """Raises CheckpointError where the version is newer than this gpucnn, or too old."""
    version = attributes.get("format_version")
    if not isinstance(version, int):
        raise CheckpointError("its attribute 'format_version' is missing or no int")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"its format_version is {version}, this gpucnn knows up to {FORMAT_VERSION}: upgrade gpucnn"
        )
    for old in range(version, FORMAT_VERSION):
        if old not in MIGRATIONS:
            raise CheckpointError(f"its format_version {version} is no longer known: load it with an older gpucnn")
        attributes, tree = MIGRATIONS[old](attributes, tree)
    return attributes, tree
