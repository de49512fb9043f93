"""Verification: the publisher's bytes, the publisher's images, or other bytes."""

import gzip
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_samples import (
    TEN_BINARY,
    TEN_PYTHON,
    cifar_contents,
    cifar_planes,
    python2_pickle,
    tiny_cifar10,
    write_archive,
    write_folder,
    write_mnist,
)

from gpucnn.data import DATASETS
from gpucnn.data.files.sources import RemoteFile, Source
from gpucnn.data.files.verify import BYTES, IMAGES, OTHER, digest_of_images, verify
from gpucnn.errors import DataError


def answers(source: Source, place: Path) -> list[str]:
    return [verdict.answer for verdict in verify(source, place)]


def known(path: Path) -> RemoteFile:
    """What a publisher of this file would say of it."""
    body = path.read_bytes()
    content = gzip.decompress(body) if path.suffix == ".gz" and not path.name.endswith("tar.gz") else b""
    return RemoteFile(path.name, len(body), hashlib.sha256(body).hexdigest(), (), hashlib.sha256(content).hexdigest())


def test_another_gzip_wrapper_or_none_is_still_the_publisher_s(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    source = replace(DATASETS["mnist"], remote=tuple(map(known, tmp_path.iterdir())), images="")
    assert answers(source, tmp_path) == [BYTES] * 4
    images = tmp_path / "train-images-idx3-ubyte.gz"
    content = gzip.decompress(images.read_bytes())
    images.write_bytes(gzip.compress(content, 1, mtime=7))
    assert answers(source, tmp_path) == [BYTES] * 4
    images.unlink()
    images.with_suffix("").write_bytes(content)
    verdicts = verify(source, tmp_path)
    assert [v.answer for v in verdicts] == [BYTES] * 4
    assert (verdicts[0].path, verdicts[0].size) == (images.with_suffix(""), len(content))


def test_one_other_byte_is_noticed(tmp_path: Path) -> None:
    write_mnist(tmp_path, packed=False)
    packed = tmp_path / "published"
    write_mnist(packed)
    source = replace(DATASETS["mnist"], remote=tuple(map(known, packed.iterdir())))
    assert answers(source, tmp_path) == [BYTES] * 4
    path = tmp_path / "t10k-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert answers(source, tmp_path) == [BYTES, BYTES, OTHER, BYTES]


def test_the_publisher_s_images_in_another_order_or_format(tmp_path: Path) -> None:
    contents = cifar_contents(TEN_BINARY)
    archive = write_archive(tmp_path / TEN_BINARY.archive, contents, TEN_BINARY.folder)
    source = tiny_cifar10()
    images = digest_of_images(source.load(archive))
    source = replace(source, known=(known(archive),), images=images)
    assert answers(source, archive) == [BYTES]

    turned = {
        name: b"".join(content[n * 3073 : (n + 1) * 3073] for n in (3, 1, 0, 2)) for name, content in contents.items()
    }
    turned["test_batch.bin"] = contents["test_batch.bin"]
    folder = write_folder(tmp_path / "turned" / TEN_BINARY.folder, turned)
    assert answers(source, folder) == [IMAGES] * 6

    planes = dict(zip([*TEN_PYTHON.train, *TEN_PYTHON.test], cifar_planes(TEN_BINARY).values(), strict=True))
    pickles = {n: python2_pickle(p.reshape(len(p), -1), labels.tolist()) for n, (p, labels) in planes.items()}
    assert answers(source, write_folder(tmp_path / TEN_PYTHON.folder, pickles)) == [IMAGES] * 6


@pytest.mark.parametrize("at", [0, 3000])
def test_another_label_or_pixel_is_another_image(tmp_path: Path, at: int) -> None:
    contents = cifar_contents(TEN_BINARY)
    source = tiny_cifar10()
    first = write_folder(tmp_path / "first" / TEN_BINARY.folder, contents)
    source = replace(source, images=digest_of_images(source.load(first)))
    changed = bytearray(contents["data_batch_4.bin"])
    changed[at] = (changed[at] + 1) % 10
    contents["data_batch_4.bin"] = bytes(changed)
    assert answers(source, write_folder(tmp_path / "second" / TEN_BINARY.folder, contents)) == [OTHER] * 6


def test_images_do_not_move_between_training_and_test(tmp_path: Path) -> None:
    train, test = tiny_cifar10().load(write_folder(tmp_path / TEN_BINARY.folder, cifar_contents(TEN_BINARY)))
    taken = replace(train, images=np.concatenate([test.images[:1], train.images[1:]]))
    assert digest_of_images((train, test)) != digest_of_images((taken, test))
    assert digest_of_images((train, test)) != digest_of_images((test, train))


def test_a_damaged_set_is_an_error(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"rubbish")
    with pytest.raises(DataError, match="train-labels-idx1-ubyte"):
        verify(DATASETS["mnist"], tmp_path)
