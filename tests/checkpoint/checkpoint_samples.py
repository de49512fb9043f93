"""Small checkpoints to save, and the means to change a file and seal it again with a right digest."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from gpucnn.checkpoint import Checkpoint, save_checkpoint
from gpucnn.checkpoint.envelope import USER_BLOCK, user_block
from gpucnn.checkpoint.file import ADDED


def sample(seed: int = 0, epoch: int = 2) -> Checkpoint:
    """Two layers, batch norm, momentum, two epochs of history."""
    rng = np.random.default_rng(seed)
    parameters = {
        "features.0.weight": rng.standard_normal((4, 3, 3, 2), dtype="float32"),
        "features.1.scale": rng.standard_normal(4, dtype="float32"),
        "classifier.10.weight": rng.standard_normal((3, 4), dtype="float32"),
    }
    return Checkpoint(
        parameters=parameters,
        buffers={"features.1.running_mean": rng.standard_normal(4, dtype="float32")},
        optimizer={"velocity": {name: 0.5 * array for name, array in parameters.items()}},
        progress={"epoch": epoch, "batch": 0, "step": 10 * epoch, "loss_sum": 0.25, "best_accuracy": 0.5, **ADDED},
        history={"epoch": list(range(1, epoch + 1)), "test_loss": [1.0 / (i + 1) for i in range(epoch)]},
        config='[model]\nname = "böse"\n',
        environment='{"python": "3.11"}',
        dataset_digest="ab" * 32,
        seed=seed,
    )


def assert_equal(a: Checkpoint, b: Checkpoint) -> None:
    """Every array bit for bit, everything else by ==."""
    for x, y in ((a.tensors(), b.tensors()),):
        assert x.keys() == y.keys()
        for name in x:
            assert x[name].dtype == y[name].dtype
            assert x[name].shape == y[name].shape
            assert x[name].tobytes() == y[name].tobytes()
    assert (dict(a.progress), dict(a.history)) == (dict(b.progress), dict(b.history))
    assert [type(v) for _, v in sorted(a.progress.items())] == [type(v) for _, v in sorted(b.progress.items())]
    assert (a.config, a.environment, a.dataset_digest, a.test_digest, a.seed) == (
        b.config,
        b.environment,
        b.dataset_digest,
        b.test_digest,
        b.seed,
    )


def seal(path: Path, image: bytes) -> Path:
    """Write an image with the block, and so the digest, that belongs to it."""
    path.write_bytes(user_block(image) + image)
    return path


def image_of(path: Path) -> bytes:
    """What is behind the block."""
    return path.read_bytes()[USER_BLOCK:]


def edited(path: Path, edit: Callable[[h5py.File], object]) -> Path:
    """A sample checkpoint, edited with h5py and sealed again."""
    save_checkpoint(path, sample())
    with h5py.File(path, "r+") as file:
        edit(file)
    return seal(path, image_of(path))


def patched(path: Path, patch: Callable[[bytearray], object]) -> Path:
    """A sample checkpoint, its bytes patched and sealed again."""
    save_checkpoint(path, sample())
    image = bytearray(image_of(path))
    patch(image)
    return seal(path, bytes(image))
