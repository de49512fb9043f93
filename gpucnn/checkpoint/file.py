"""A checkpoint file whose digest and structure are verified before its tensors are read."""

from collections.abc import Callable, Mapping
from pathlib import Path

from gpucnn.checkpoint import contents
from gpucnn.checkpoint.contents import (
    FORMAT,
    FORMAT_VERSION,
    GROUPS,
    LONGEST_HISTORY,
    MOST_COLUMNS,
    Checkpoint,
    Number,
)
from gpucnn.checkpoint.structure import Entry, Tree
from gpucnn.errors import CheckpointError, NotANumberError
from gpucnn.types import Array, Shape

Tensors = Mapping[str, tuple[Shape, str]]
"""name -> (shape, dtype)"""

Expected = Callable[[str], Mapping[str, Tensors]]
"""config text -> {"parameters": ..., "buffers": ..., "averages/ema": ...}, of the model that it builds"""

ATTRIBUTES = {
    **dict.fromkeys(("gpucnn_version", "dataset_digest", "test_digest"), str),
    **dict.fromkeys(("format_version", "epoch", "step", "seed"), int),
}
TENSOR_TYPES = {"float16", "float32", "float64", "int32", "int64", "uint8"}
WIDER = {"float16": "float32"}  # half precision is for the disk only
ADDED: dict[str, Number] = {"loss_scale": 65536.0, "good_steps": 0, "cut": 0}
"""Scalars that earlier checkpoints lack in /progress, and their values for such a run."""
LATER: dict[str, str | int | float] = {"test_digest": ""}
"""The same for attributes."""


class CheckpointFile:
    """A verified file: ``check`` compares it with a model, ``read`` copies its tensors.

    Args:
        image: the HDF5 part of the file, as it was read.

    Attributes:
        path, size: of the file; the size in bytes.
        attributes: format, format_version, gpucnn_version, dataset_digest, test_digest, epoch, step, seed.
        config, environment: the texts.
        entries, groups: all data sets by path, and the paths of all groups.

    Raises:
        CheckpointError: the image is not a checkpoint of a known version.
    """

    def __init__(self, path: Path, image: bytes, size: int) -> None:
        tree = Tree(image)
        found: dict[str, str | int | float] = {
            name: contents.read_text(name, entry) if entry.dtype == "text" else contents.read_number(name, entry)
            for name, entry in tree.attributes.items()
        }
        if found.get("format") != FORMAT:
            raise CheckpointError(f"its format is {found.get('format')!r}, not {FORMAT!r}")
        found = LATER | found
        for name, kind in ATTRIBUTES.items():
            if not isinstance(found.get(name), kind):
                raise CheckpointError(f"its attribute {name!r} is missing or no {kind.__name__}")
        if (version := found["format_version"]) != FORMAT_VERSION:
            raise CheckpointError(
                f"its format_version is {version}, this gpucnn reads {FORMAT_VERSION}: upgrade gpucnn"
            )
        _check_paths(tree)
        self.path, self.size, self.attributes, self.entries, self.groups = path, size, found, tree.entries, tree.groups
        self.config, self.environment = (contents.read_text(n, tree.entries[n]) for n in ("config", "environment"))
        self.history()
        for state in self.states():
            compare(self.tensors(f"optimizer/{state}"), self.tensors("model"), f"optimizer/{state}")
        for name in ("epoch", "step"):
            if self.progress().get(name, 0) != found[name]:
                raise CheckpointError(f"its attribute {name!r} contradicts /progress/{name}")

    def members(self, group: str) -> dict[str, Entry]:
        """Name -> entry of the data sets in a group."""
        start = f"{group}/"
        return {path[len(start) :]: e for path, e in self.entries.items() if path.startswith(start)}

    def tensors(self, group: str) -> dict[str, tuple[Shape, str]]:
        """Name -> (shape, dtype) in "model", "buffers" or "optimizer/<state>"."""
        return {name: (entry.shape, entry.dtype) for name, entry in self.members(group).items()}

    def arrays(self, group: str) -> dict[str, Array]:
        """Name -> a new array, of the tensors in a group."""
        return {name: contents.read_array(entry) for name, entry in self.members(group).items()}

    def states(self) -> list[str]:
        """Names of the optimizer's states: velocity, or m and v."""
        return self._below("optimizer/")

    def averages(self) -> list[str]:
        """Names of the averages of the weights."""
        return self._below("averages/")

    def _below(self, start: str) -> list[str]:
        return sorted(group.removeprefix(start) for group in self.groups if group.startswith(start))

    def progress(self) -> dict[str, Number]:
        return {key: contents.read_number(f"progress/{key}", e) for key, e in self.members("progress").items()}

    def history(self) -> dict[str, list[Number]]:
        columns: dict[str, list[Number]] = {}
        if len(entries := self.members("history")) > MOST_COLUMNS:
            raise CheckpointError(f"its history has {len(entries)} columns, more than the {MOST_COLUMNS} allowed")
        for name, entry in entries.items():
            if entry.dtype not in ("int64", "float64") or len(entry.shape) != 1:
                raise CheckpointError(f"'history/{name}' is not a column of numbers")
            if entry.shape[0] > LONGEST_HISTORY:
                raise CheckpointError(f"'history/{name}' has {entry.shape[0]:,} rows, {LONGEST_HISTORY:,} are allowed")
            columns[name] = contents.read_array(entry).tolist()
        if len({len(column) for column in columns.values()}) > 1:
            raise CheckpointError("the columns of its history have different lengths")
        return columns

    def check(self, expected: Mapping[str, Tensors]) -> None:
        """Names, shapes and dtypes against a model's; a CheckpointError names the first that differs.

        A float16 parameter counts as float32, which ``read`` converts it to.  A file without optimizer state and
        averages is an exported model, which needs none.
        """
        averages = {f"averages/{name}" for name in self.averages()}
        if averages or self.states():
            averages |= {word for word in expected if word.startswith("averages/")}
        found = {name: (shape, WIDER.get(dtype, dtype)) for name, (shape, dtype) in self.tensors("model").items()}
        compare(found, expected.get("parameters", {}), "model")
        for group in ("buffers", *sorted(averages)):
            compare(self.tensors(group), expected.get(group, {}), group)

    def read(self) -> Checkpoint:
        """Copy everything out; raises CheckpointError where a tensor holds NaN or infinity."""
        checkpoint = Checkpoint(
            parameters={name: x.astype(WIDER.get(str(x.dtype), x.dtype)) for name, x in self.arrays("model").items()},
            buffers=self.arrays("buffers"),
            optimizer={state: self.arrays(f"optimizer/{state}") for state in self.states()},
            averages={name: self.arrays(f"averages/{name}") for name in self.averages()},
            progress=ADDED | progress if (progress := self.progress()) else {},
            history=self.history(),
            config=self.config,
            environment=self.environment,
            dataset_digest=str(self.attributes["dataset_digest"]),
            test_digest=str(self.attributes["test_digest"]),
            seed=int(self.attributes["seed"]),
        )
        try:
            contents.check_finite(checkpoint)
        except NotANumberError as error:
            raise CheckpointError(str(error)) from None
        return checkpoint


def compare(found: Tensors, wanted: Tensors, group: str) -> None:
    """Raises CheckpointError naming the first tensor that is missing, unknown or different."""
    if missing := sorted(set(wanted) - set(found)):
        raise CheckpointError(f"tensor '{group}/{missing[0]}' is missing ({len(missing)} missing in all)")
    if extra := sorted(set(found) - set(wanted)):
        raise CheckpointError(f"tensor '{group}/{extra[0]}' belongs to no part of the model ({len(extra)} such)")
    for name, (shape, dtype) in sorted(wanted.items()):
        if found[name] != (tuple(shape), str(dtype)):
            (has, kind) = found[name]
            raise CheckpointError(f"tensor '{group}/{name}' is {kind} {has}, the model wants {dtype} {shape}")


def _check_paths(tree: Tree) -> None:
    """Raises CheckpointError for a group or a data set that the format does not have, or that is missing."""
    if missing := set(GROUPS) - tree.groups:
        raise CheckpointError(f"the group {sorted(missing)[0]!r} is missing")
    if missing := {"config", "environment"} - tree.entries.keys():
        raise CheckpointError(f"the text {sorted(missing)[0]!r} is missing")
    for path in sorted(tree.groups):
        above, _, below = path.partition("/")
        if path not in (*GROUPS, "averages") and not (above in ("optimizer", "averages") and "/" not in below):
            raise CheckpointError(f"the group {path!r} belongs to no checkpoint")
    for path, entry in tree.entries.items():
        group, _, _ = path.rpartition("/")
        tensor = group in ("model", "buffers") or group.startswith(("optimizer/", "averages/"))
        if group in ("", "optimizer", "averages") and path not in ("config", "environment"):
            raise CheckpointError(f"the data set {path!r} belongs to no checkpoint")
        if tensor and entry.dtype not in TENSOR_TYPES:
            raise CheckpointError(f"tensor {path!r} is a {entry.dtype}")
