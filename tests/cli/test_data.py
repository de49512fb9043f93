"""``gpucnn data``: list, download, verify."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gpucnn.cli.main import main
from gpucnn.data import DATASETS, Dataset
from gpucnn.data.files.sources import RemoteFile, Source

Out = pytest.CaptureFixture[str]


def load_toy(place: Path) -> tuple[Dataset, Dataset]:
    pixels = np.frombuffer((place / "toy.bin").read_bytes(), np.uint8).reshape(-1, 2, 2, 1)
    part = Dataset("mnist", pixels, np.zeros(len(pixels), np.uint8), ("only",))
    return part, part


TOY = Source(
    "a toy that takes a set's place",
    load=load_toy,
    find=lambda folder: folder if (folder / "toy.bin").exists() else None,
    files=lambda folder: [folder / "toy.bin"],
    remote=(RemoteFile("toy.bin", 8, "0" * 64, ("http://127.0.0.1:9/toy.bin",)),),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data directory; the toy is called mnist, and nothing else has files."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GPUCNN_DATA_DIR", str(tmp_path / "data"))
    for name in ("fashion_mnist", "cifar10", "cifar100"):
        monkeypatch.delitem(DATASETS, name)
    monkeypatch.setitem(DATASETS, "mnist", TOY)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def put(folder: Path, content: bytes = b"12345678") -> None:
    folder.mkdir(exist_ok=True)
    (folder / "toy.bin").write_bytes(content)


def row(text: str, name: str) -> list[str]:
    """The cells of the row that starts with a name."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_list_says_what_there_is_and_where(folder: Path, capsys: Out) -> None:
    assert main(["data", "list"]) == 0
    text = capsys.readouterr().out
    assert row(text, "mnist") == ["mnist", TOY.about, "0.0 MB", "not here"]
    assert row(text, "digits")[-2:] == ["-", "built in"]
    places = [line.strip() for line in text.split("searched, in this order:\n")[1].splitlines()]
    assert places == [str(folder), str(folder.parent / "home/.cache/gpucnn")]
    put(folder)
    assert main(["data", "list"]) == 0
    assert row(capsys.readouterr().out, "mnist")[-1] == str(folder)


def test_list_looks_into_data_dir_first(folder: Path, capsys: Out) -> None:
    put(folder)
    put(folder.parent / "mine")
    assert main(["data", "list", "--data-dir", str(folder.parent / "mine")]) == 0
    text = capsys.readouterr().out
    assert row(text, "mnist")[-1] == str(folder.parent / "mine")
    assert len(text.split("searched, in this order:\n")[1].splitlines()) == 3


def test_the_table_is_aligned(folder: Path, capsys: Out) -> None:
    main(["data", "list"])
    lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    where = lines[0].index("WHERE")
    assert all(line[where - 1] == " " and line[where] != " " for line in lines)


def test_download_of_what_is_here_reads_it(folder: Path, capsys: Out) -> None:
    put(folder)
    assert main(["data", "download", "mnist", "digits"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"mnist: 2 training and 2 test images in {folder}",
        "digits: built in, nothing to download",
    ]


def test_download_without_a_network_says_how_to_do_without(folder: Path, capsys: Out) -> None:
    assert main(["data", "download", "mnist"]) == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("gpucnn: error: no mirror gave toy.bin (127.0.0.1:9: ")
    assert str(folder) in said


def test_verify(folder: Path, capsys: Out) -> None:
    put(folder)
    assert main(["data", "verify"]) == 0
    assert row(capsys.readouterr().out, "mnist") == [
        "mnist",
        str(folder / "toy.bin"),
        "8",
        "other bytes (well-formed)",
    ]


def test_verify_knows_the_publisher_s_bytes(folder: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder)
    sha256 = "ef797c8118f02dfb649607dd5d3f8c7623048c9c063d532cc95c5ed7a898a64f"  # of 12345678
    remote = (replace(TOY.remote[0], sha256=sha256),)
    monkeypatch.setitem(DATASETS, "mnist", replace(TOY, remote=remote))
    assert main(["data", "verify", "mnist", "digits"]) == 0
    text = capsys.readouterr().out
    assert row(text, "mnist")[-1] == "publisher's bytes"
    assert row(text, "digits")[-1] == "built in"


def test_verify_of_a_damaged_set_fails_after_the_table(
    folder: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(place: Path) -> tuple[Dataset, Dataset]:
        from gpucnn.errors import DataError

        raise DataError(f"{place}/toy.bin is damaged")

    monkeypatch.setitem(DATASETS, "mnist", replace(TOY, load=load))
    put(folder)
    assert main(["data", "verify"]) == 3
    captured = capsys.readouterr()
    assert row(captured.out, "mnist")[-1] == "DAMAGED"
    assert captured.err == f"gpucnn: error: {folder}/toy.bin is damaged\n"


def test_verify_of_what_is_not_here(folder: Path, capsys: Out) -> None:
    assert main(["data", "verify"]) == 0
    assert row(capsys.readouterr().out, "mnist")[-1] == "not here"
    assert main(["data", "verify", "mnist"]) == 3
    assert "mnist is not here: run gpucnn data download mnist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["download", "mnits"], "unknown data set 'mnits': did you mean 'mnist'?"),
        (["verify", "digit"], "unknown data set 'digit': did you mean 'digits'?"),
    ],
)
def test_unknown_names(folder: Path, capsys: Out, words: list[str], message: str) -> None:
    assert main(["data", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["download"], ["fetch"]])
def test_usage(folder: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["data", *words])
    assert caught.value.code == 2
