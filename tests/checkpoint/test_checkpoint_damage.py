"""A file that is not exactly what was saved is refused in one line; what is no file does not block."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
from checkpoint_samples import sample

from gpucnn.checkpoint import envelope, load_checkpoint, open_checkpoint, save_checkpoint
from gpucnn.errors import CheckpointError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "x.h5"
    save_checkpoint(path, sample())
    return path.read_bytes()


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as info:
        load_checkpoint(path)
    message = str(info.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("seed", range(4))
def test_flipped_bits(whole: bytes, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    for _ in range(100):
        changed = bytearray(whole)
        for place in {rng.randrange(len(whole)) for _ in range(rng.choice([1, 1, 2, 30]))}:
            changed[place] ^= 1 << rng.randrange(8)
        (tmp_path / "x.h5").write_bytes(changed)
        refused(tmp_path / "x.h5")


def test_every_bit_of_the_block(whole: bytes, tmp_path: Path) -> None:
    for bit in range(8 * envelope.USER_BLOCK):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        (tmp_path / "x.h5").write_bytes(changed)
        refused(tmp_path / "x.h5")


def test_truncated_and_lengthened(whole: bytes, tmp_path: Path) -> None:
    lengths = {*range(600), *np.linspace(600, len(whole) - 1, 100).astype(int)}
    for length in sorted(lengths):
        (tmp_path / "x.h5").write_bytes(whole[:length])
        refused(tmp_path / "x.h5")
    (tmp_path / "x.h5").write_bytes(whole + b"\0")
    assert f"too long: {len(whole) + 1} bytes instead of {len(whole)}" in refused(tmp_path / "x.h5")


def test_zeroed_blocks(whole: bytes, tmp_path: Path) -> None:
    for start in range(0, len(whole), 512):
        changed = whole[:start] + bytes(512) + whole[start + 512 :]
        if changed[: len(whole)] != whole:
            (tmp_path / "x.h5").write_bytes(changed[: len(whole)])
            refused(tmp_path / "x.h5")


def test_what_is_no_checkpoint(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    assert "No such file" in refused(path)
    path.write_bytes(b"")
    assert "empty" in refused(path)
    path.write_text("accuracy 0.99\n" * 100)
    assert "not a gpucnn checkpoint" in refused(path)
    path.write_bytes(whole[512:])  # HDF5, but not sealed
    assert "not a gpucnn checkpoint" in refused(path)
    path.write_bytes(whole.replace(b"GPUCNN-HDF5 1", b"GPUCNN-HDF5 2", 1))
    assert "version 2, this gpucnn reads 1: upgrade" in refused(path)
    assert "folder" in refused(tmp_path)
    assert "Not a directory" in refused(path / "last.h5")


def test_special_files_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refused(tmp_path / "fifo")
    assert "not a regular file" in refused(Path("/dev/null"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "symbolic links" in refused(tmp_path / "loop")


def test_a_link_to_a_checkpoint_is_one(whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(whole)
    (tmp_path / "link.h5").symlink_to("x.h5")
    assert load_checkpoint(tmp_path / "link.h5").seed == 0
    assert load_checkpoint(str(tmp_path / "link.h5")).seed == 0


def test_the_digest_is_checked_before_anything_is_parsed(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.h5").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    monkeypatch.setattr("gpucnn.checkpoint.file.Tree", lambda image: pytest.fail("parsed"))
    assert "SHA-256" in refused(tmp_path / "x.h5")


def test_a_huge_declared_length_reads_nothing(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"GPUCNN-HDF5 1\nlength 1099511627776\n".ljust(512, b"\0"))
    assert "truncated" in refused(path)
    os.truncate(path, 512 + 1099511627776)  # a sparse TiB
    assert "more than" in refused(path)


def test_no_right_to_read(whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> int:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x.h5").write_bytes(whole)
    monkeypatch.setattr("gpucnn.checkpoint.envelope.os.open", refuse)
    with pytest.raises(CheckpointError, match="cannot open it: Permission denied"):
        open_checkpoint(tmp_path / "x.h5")
