"""Archives: the named members come back; hostile archives are refused, nothing is written."""

import gzip
import io
import tarfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from data_samples import plain, tar_info, write_members
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpucnn.data.files.tar import BLOCK, MOST_ENTRIES, read_members
from gpucnn.errors import DataError

CONTENT = bytes(range(256)) * 3
WANTED = {"set/data.bin": (768, 768)}
GOOD = [
    (tar_info("set", type=tarfile.DIRTYPE), b""),
    plain("set/readme.html", b"hello"),
    plain("set/data.bin", CONTENT),
]
FAST = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def refused(path: Path, wanted: dict[str, tuple[int, int]] = WANTED) -> str:
    """The message; the folder holds nothing but the archive, before and after."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(DataError) as caught:
        read_members(path, wanted)
    assert sorted(path.parent.rglob("*")) == before
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_named_members_come_back(tmp_path: Path, format: int) -> None:
    members = [plain(info.name, content, type=info.type, mtime=1234567.875) for info, content in GOOD]
    path = write_members(tmp_path / "set.tar.gz", members, format=format)  # a fraction makes PAX records
    assert read_members(path, WANTED) == {"set/data.bin": CONTENT}


def test_an_archive_that_is_not_compressed_or_starts_with_a_dot_is_fine(tmp_path: Path) -> None:
    path = write_members(tmp_path / "set.tar.gz", [plain("./set/data.bin", CONTENT)])
    path.write_bytes(gzip.decompress(path.read_bytes()))
    assert read_members(path, WANTED) == {"set/data.bin": CONTENT}


def test_a_name_may_be_split_as_ustar_splits_long_ones(tmp_path: Path) -> None:
    name = f"{'d' * 90}/{'f' * 90}"
    path = write_members(tmp_path / "set.tar.gz", [plain(name, CONTENT)], format=tarfile.USTAR_FORMAT)
    assert read_members(path, {name: (768, 768)}) == {name: CONTENT}


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (plain("../evil.sh", b"x"), "'../evil.sh' leads out of the archive"),
        (plain("set/../../evil.sh", b"x"), "leads out of the archive"),
        (plain("/etc/cron.d/evil", b"x"), "leads out of the archive"),
        (plain("set\\..\\..\\evil.exe", b"x"), "leads out of the archive"),
        (plain("set/data.bin", b"y" * 768), "has two members called 'set/data.bin'"),
        (plain("./set/data.bin", b"y" * 768), "has two members called 'set/data.bin'"),
        (plain("set/readme.html", b""), "has two members called 'set/readme.html'"),
        ((tar_info("set/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""), "is a symbolic link"),
        ((tar_info("set/hard", type=tarfile.LNKTYPE, linkname="set/data.bin"), b""), "is a link"),
        ((tar_info("set/tty", type=tarfile.CHRTYPE), b""), "is a device"),
        ((tar_info("set/disk", type=tarfile.BLKTYPE), b""), "is a device"),
        ((tar_info("set/pipe", type=tarfile.FIFOTYPE), b""), "is a FIFO"),
        ((tar_info("set/sparse", type=tarfile.GNUTYPE_SPARSE), b""), "is of type b'S'"),
        (plain("set/" + "long" * 60, b"x"), "is of type b'L'"),  # GNU's long names
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_hostile_members_are_refused(
    tmp_path: Path, hostile: tuple[tarfile.TarInfo, bytes], message: str, first: bool
) -> None:
    members = [hostile, *GOOD] if first else [*GOOD, hostile]
    said = refused(write_members(tmp_path / "set.tar.gz", members, format=tarfile.GNU_FORMAT))
    assert message in said or ("two members" in message and first and "two members" in said)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_does_not_stand_in_for_a_wanted_member(tmp_path: Path, kind: bytes) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    members = [(tar_info("set/data.bin", type=kind, linkname=str(secret), size=768), CONTENT)]
    assert "link" in refused(write_members(tmp_path / "set.tar.gz", members))


def test_a_folder_does_not_stand_in_for_a_wanted_member(tmp_path: Path) -> None:
    path = write_members(tmp_path / "set.tar.gz", [(tar_info("set/data.bin", type=tarfile.DIRTYPE), b"")])
    assert "lacks its member set/data.bin" in refused(path)


def test_a_missing_member_and_one_of_another_size(tmp_path: Path) -> None:
    path = write_members(tmp_path / "set.tar.gz", GOOD)
    assert "lacks its member set/other.bin" in refused(path, {"set/other.bin": (1, 1)})
    assert "has 768 bytes instead of 769;" in refused(path, {"set/data.bin": (769, 769)})
    assert "has 768 bytes instead of 1 to 767;" in refused(path, {"set/data.bin": (1, 767)})


@pytest.mark.parametrize("name", ["set/more", "set/data.bin"])
def test_a_bomb_is_not_unpacked(tmp_path: Path, name: str) -> None:
    path = write_members(tmp_path / "set.tar.gz", [plain(name, bytes(48 << 20))])
    tracemalloc.start()
    try:
        assert "far more" in refused(path)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_bomb_behind_the_end_mark_is_not_unpacked(tmp_path: Path) -> None:
    path = write_members(tmp_path / "set.tar.gz", GOOD)
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(48 << 20), 1))
    assert "far more" in refused(path)


def test_a_size_that_is_a_lie_reserves_no_memory(tmp_path: Path) -> None:
    wanted = {"set/data.bin": (0, 200 << 20)}
    raw = bytearray(gzip.decompress(write_members(tmp_path / "set.tar.gz", [plain("set/data.bin", b"x")]).read_bytes()))
    raw[124:136] = b"00500000000\0"  # 80 MiB
    path = tmp_path / "set.tar.gz"
    path.write_bytes(gzip.compress(with_checksum(raw)))
    tracemalloc.start()
    try:
        assert "ends within set/data.bin" in refused(path, wanted)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def with_checksum(raw: bytearray) -> bytes:
    """The same with a right checksum in the first header."""
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:BLOCK])
    return bytes(raw)


@pytest.mark.parametrize("field", [b"\x80" + bytes(10) + b"\x10", b"-0000000100\0", b"12a45678901\0", bytes(12)])
def test_a_size_that_is_no_number(tmp_path: Path, field: bytes) -> None:
    path = write_members(tmp_path / "set.tar.gz", GOOD)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[124:136] = field
    path.write_bytes(gzip.compress(with_checksum(raw)))
    assert "is not an octal number" in refused(path)


def test_a_header_with_a_wrong_checksum(tmp_path: Path) -> None:
    path = write_members(tmp_path / "set.tar.gz", GOOD)
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[110] ^= 1  # in the owner's number, which nobody reads
    path.write_bytes(gzip.compress(raw))
    assert "bad checksum" in refused(path)


def test_too_many_members(tmp_path: Path) -> None:
    members = [plain(f"set/{number}", b"") for number in range(MOST_ENTRIES + 1)]
    assert f"more than {MOST_ENTRIES} members" in refused(write_members(tmp_path / "set.tar.gz", members))


def test_endless_comments(tmp_path: Path) -> None:
    """PAX records are passed over, but not forever."""
    comment = with_checksum(bytearray(tar_info("x", type=tarfile.XHDTYPE).tobuf()))
    path = tmp_path / "set.tar.gz"
    path.write_bytes(gzip.compress(comment * 100_000, 1))
    assert f"more than {MOST_ENTRIES} members" in refused(path)


@pytest.mark.parametrize("cut", [3, 50, 200, -40, -4])
def test_a_truncated_archive(tmp_path: Path, cut: int) -> None:
    path = write_members(tmp_path / "set.tar.gz", GOOD)
    path.write_bytes(path.read_bytes()[:cut])
    assert "is damaged" in refused(path) or "truncated" in refused(path) or cut == 3


@pytest.mark.parametrize("blocks", [0.5, 1, 2.5, 4.5])
def test_a_tar_that_ends_too_early_inside_a_whole_gzip(tmp_path: Path, blocks: float) -> None:
    path = write_members(tmp_path / "set.tar.gz", GOOD)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[: int(blocks * BLOCK)]))
    assert "is truncated: it ends" in refused(path)


PAGE = b"<!DOCTYPE html>" * 100


@pytest.mark.parametrize("content", [b"", PAGE, gzip.compress(PAGE)], ids=["nothing", "a page", "a page in a gzip"])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "set.tar.gz"
    path.write_bytes(content)
    refused(path)


def sample() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, content in GOOD:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()[: 8 * BLOCK]  # headers, contents, the end mark


@FAST
@given(place=st.integers(0, 8 * BLOCK - 1), value=st.integers(0, 255))
def test_a_changed_byte_of_the_tar_raises_nothing_else(tmp_path: Path, place: int, value: int) -> None:
    raw = bytearray(sample())
    raw[place] = value
    path = tmp_path / "changed.tar.gz"
    path.write_bytes(raw)
    with suppress(DataError):
        assert len(read_members(path, WANTED)["set/data.bin"]) == 768


@FAST
@given(place=st.integers(0, len(gzip.compress(sample(), mtime=0)) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_of_the_gzip_is_noticed_or_harmless(tmp_path: Path, place: int, bit: int) -> None:
    raw = bytearray(gzip.compress(sample(), mtime=0))
    raw[place] ^= 1 << bit
    path = tmp_path / "flipped.tar.gz"
    path.write_bytes(raw)
    with suppress(DataError):
        assert read_members(path, WANTED) == {"set/data.bin": CONTENT}
