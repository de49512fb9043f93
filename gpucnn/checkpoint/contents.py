"""The contents of a checkpoint, as a dataclass and as an HDF5 image.

    /model/<parameter>                 float32 arrays, contiguous
    /buffers/<buffer>                  batch norm's running statistics
    /optimizer/<state>/<parameter>     one group per state ("velocity", or "m" and "v")
    /averages/<average>/<name>         of trained parameters and of buffers, in runs with averages ("ema")
    /history/<column>                  one number per epoch
    /progress/<key>                    scalars: epoch, step and the rest of the training state
    /config, /environment              texts: TOML, JSON
    attributes of /                    format, format_version, gpucnn_version, dataset_digest,
                                       test_digest, epoch, step, seed

Everything is written in the order of names and without timestamps, so equal contents give equal bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count

import h5py
import numpy as np

from gpucnn.checkpoint.envelope import USER_BLOCK
from gpucnn.checkpoint.structure import Entry
from gpucnn.errors import CheckpointError, NotANumberError, UsageError
from gpucnn.types import Array
from gpucnn.version import __version__

FORMAT = "gpucnn-checkpoint"
FORMAT_VERSION = 1
LONGEST_TEXT, LONGEST_HISTORY, MOST_COLUMNS = 2**18, 10**6, 64
GROUPS = ("model", "buffers", "optimizer", "progress", "history")

Number = int | float


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run.

    Attributes:
        parameters, buffers: name -> host array.
        optimizer: state name ("velocity") -> parameter name -> host array of the parameter's shape.
        averages: name of an average ("ema") -> parameter or buffer -> host array of its shape.
        progress: scalars of the training state; "epoch" and "step" are repeated in the file's attributes.
        history: column -> one number per epoch.  No timings: equal runs give equal bytes.
        config: TOML from which the model is rebuilt.
        environment: JSON, the versions and hardware of the training; without dates, for the same reason.
        dataset_digest, test_digest: of the training set and of the images it is tested on.
        seed: of the run.
    """

    parameters: Mapping[str, Array]
    buffers: Mapping[str, Array]
    optimizer: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    averages: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    progress: Mapping[str, Number] = field(default_factory=dict)
    history: Mapping[str, list[Number]] = field(default_factory=dict)
    config: str = ""
    environment: str = "{}"
    dataset_digest: str = ""
    test_digest: str = ""
    seed: int = 0

    def tensors(self) -> dict[str, Array]:
        """Path in the file -> array: parameters, buffers, optimizer state and averages."""
        groups = {"model": self.parameters, "buffers": self.buffers}
        groups |= {f"optimizer/{state}": arrays for state, arrays in self.optimizer.items()}
        groups |= {f"averages/{average}": arrays for average, arrays in self.averages.items()}
        return {f"{group}/{name}": array for group, arrays in groups.items() for name, array in arrays.items()}


def check_finite(checkpoint: Checkpoint) -> None:
    """Raises NotANumberError, naming the tensor, where one holds NaN or infinity."""
    for path, array in checkpoint.tensors().items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            raise NotANumberError(f"tensor {path!r} holds NaN or infinity in {bad} of {array.size} places")


_open_images = count()


def make_image(checkpoint: Checkpoint) -> bytes:
    """Checkpoint -> HDF5 image, to be written after a user block."""
    layout = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    layout.set_userblock(USER_BLOCK)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fapl_core(1 << 20, False)  # in memory only
    access.set_libver_bounds(h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_V18)
    name = f"gpucnn-checkpoint-{next(_open_images)}".encode()  # open files need different names
    with h5py.File(h5py.h5f.create(name, h5py.h5f.ACC_EXCL, fcpl=layout, fapl=access)) as file:
        attributes: dict[str, str | int] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "gpucnn_version": __version__,
            "dataset_digest": checkpoint.dataset_digest,
            "test_digest": checkpoint.test_digest,
            "epoch": int(checkpoint.progress.get("epoch", 0)),
            "step": int(checkpoint.progress.get("step", 0)),
            "seed": checkpoint.seed,
        }
        for key, value in attributes.items():
            file.attrs.create(key, **_value(key, value))
        states = (f"optimizer/{state}" for state in sorted(checkpoint.optimizer))
        averages = (f"averages/{average}" for average in sorted(checkpoint.averages))
        for group in (*GROUPS, *states, *averages):
            file.create_group(group)
        values = {**checkpoint.tensors(), "config": checkpoint.config, "environment": checkpoint.environment}
        values |= {f"progress/{key}": value for key, value in checkpoint.progress.items()}
        values |= {f"history/{column}": _column(row) for column, row in checkpoint.history.items()}
        for path in sorted(values):
            file.create_dataset(path, **_value(path, values[path]), track_times=False)
        file.flush()
        image: bytes = file.id.get_file_image()
        return image


def _value(path: str, value: str | Number | Array) -> dict[str, object]:
    """Arguments for h5py: data and type."""
    if isinstance(value, str):
        raw = value.encode() or b"\0"  # HDF5 has no empty text
        if "\0" in value:
            raise UsageError(f"{path!r} is a text with a NUL character, where HDF5 would cut it off: remove it")
        return {"data": np.bytes_(raw), "dtype": h5py.string_dtype("utf-8", len(raw))}
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise UsageError(f"{path!r} is {value}: it must fit into 64 bits")
        return {"data": np.int64(value)}
    if isinstance(value, float):
        return {"data": np.float64(value)}
    return {"data": np.ascontiguousarray(value).reshape(value.shape)}  # which makes 0-d arrays 1-d


def _column(values: list[Number]) -> Array:
    whole = bool(values) and all(isinstance(value, int) for value in values)
    return np.array(values, dtype="int64" if whole else "float64")


def read_array(entry: Entry) -> Array:
    """Entry -> a new array in the machine's byte order."""
    little = np.ndarray(entry.shape, np.dtype(entry.dtype).newbyteorder("<"), entry.data)
    return little.astype(entry.dtype)


def read_number(path: str, entry: Entry) -> Number:
    """Entry -> int or float."""
    if entry.dtype not in ("int64", "float64") or entry.shape:
        raise CheckpointError(f"{path!r} is {entry.dtype} {entry.shape} where a number is expected")
    number: Number = read_array(entry).item()
    return number


def read_text(path: str, entry: Entry) -> str:
    """Entry -> str."""
    if entry.dtype != "text":
        raise CheckpointError(f"{path!r} is {entry.dtype} {entry.shape} where a text is expected")
    if len(entry.data) > LONGEST_TEXT:
        raise CheckpointError(
            f"the text {path!r} has {len(entry.data):,} bytes, more than the {LONGEST_TEXT:,} allowed"
        )
    try:
        return str(entry.data, "utf-8").rstrip("\0")
    except UnicodeDecodeError:
        raise CheckpointError(f"the text {path!r} is not UTF-8") from None
