"""Settings and numbers that no run has, in a file with a right digest: one line and exit code 4, by every command."""

from pathlib import Path

import h5py
import pytest
from checkpoint_samples import image_of, seal
from hostile_runs import RUNS, names, value
from PIL import Image

from gpucnn.checkpoint import load_checkpoint, open_checkpoint
from gpucnn.cli.main import main
from gpucnn.errors import CheckpointError
from gpucnn.runs.state import expected_tensors, load_run

TRAIN = ["train", "--model", "mlp", "--set", "model.options.width=8", "--device", "reference", "--max-steps", "1"]

COMMANDS = {
    "predict": ["predict", "--device", "reference", "--checkpoint", "X.h5", "digit.png"],
    "evaluate": ["evaluate", "--device", "reference", "--checkpoint", "X.h5"],
    "features": ["features", "--checkpoint", "X.h5", "digit.png", "--out", "pictures"],
    "export": ["export", "--checkpoint", "X.h5", "--out", "exported.h5"],
    "resume": ["train", "--resume", "X.h5", "--output", "resumed", "--epochs", "13"],
    "resume, forced": ["train", "--resume", "X.h5", "--output", "resumed", "--force", "--epochs", "20"],
}
SOME = ("no progress", "best_accuracy is NaN", "a column NaN", "empty settings", "std 1e-320")
SOME += ("a dotted key of 40 kB", "10^9 channels", "a plugin")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The checkpoint of a run of one step."""
    folder = tmp_path_factory.mktemp("run") / "run"
    assert main([*TRAIN, "--output", str(folder)]) == 0
    return (folder / "last.h5").read_bytes()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    Path("X.h5").write_bytes(whole)
    Image.new("L", (8, 8), 100).save("digit.png")


def edit(name: str) -> None:
    with h5py.File("X.h5", "r+") as file:
        RUNS[name](file)
    seal(Path("X.h5"), image_of(Path("X.h5")))


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command, which must fail; returns its line."""
    capsys.readouterr()
    assert main(words) == 4
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith("gpucnn: error: X.h5: ")
    assert len(line) < 2000
    return line


@pytest.mark.parametrize("name", RUNS)
def test_a_file_that_no_run_has_written_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    edit(name)
    refused(COMMANDS["predict"], capsys)
    with pytest.raises(CheckpointError, match=r"X\.h5: "):
        load_run(Path("X.h5"))
    assert main(["inspect", "X.h5"]) in (0, 4)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_it(command: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(Path().iterdir())
    edit(name)
    refused(COMMANDS[command], capsys)
    assert set(Path().iterdir()) == before


@pytest.mark.parametrize("name", ["epoch NaN", "epoch 2^62", "loss of 1e308", "accuracy of -3", "no epochs"])
def test_no_curve_is_drawn_of_odd_numbers(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    edit(name)
    assert main(["plot", "X.h5"]) in (2, 4)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gpucnn: error: X.h5")
    assert not Path("curves.png").exists()


def test_the_file_that_is_edited_is_sound(capsys: pytest.CaptureFixture[str]) -> None:
    for command, words in COMMANDS.items():
        if command != "resume, forced":
            assert main(words) == 0, command
    assert main(["plot", "X.h5"]) == 0
    assert capsys.readouterr().err == ""


def test_names_of_classes_are_text_and_no_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File("X.h5", "r+") as file:
        value("classes", names("$\\bad{$"))(file)
    seal(Path("X.h5"), image_of(Path("X.h5")))
    assert main(COMMANDS["features"]) == 0
    Path("X.h5").rename("$\\bad{$.h5")
    assert main(["plot", "$\\bad{$.h5"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["predict", "evaluate", "features"])
def test_an_answer_of_nan_is_no_success(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File("X.h5", "r+") as file:
        for name in file["model"]:
            file["model"][name][...] = 3e38
    seal(Path("X.h5"), image_of(Path("X.h5")))
    assert main(COMMANDS[command]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gpucnn: error: ")
    assert "NaN" in line or "nan" in line


def test_long_texts_are_refused_before_they_are_parsed() -> None:
    """By whoever reads the file, whether or not it is asked for a model."""
    edit("a name of 3 MB")
    for read in (open_checkpoint, load_checkpoint, lambda path: load_checkpoint(path, expected_tensors)):
        with pytest.raises(CheckpointError, match="the text 'config' has 3,00"):
            read("X.h5")
