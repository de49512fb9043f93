"""The models that come with a clone are the ones the table names, and as accurate as it says."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from gpucnn.cli.main import main
from gpucnn.runs.state import load_trained

FOLDER = Path(__file__).parents[2] / "gpucnn" / "pretrained"
ROW = re.compile(r"^\| `(\S+\.h5)` \| ([\d,]+) \| ([\d.]+) %.* \| `([0-9a-f]{64})` \|$", re.MULTILINE)
TABLE = ROW.findall((FOLDER / "README.md").read_text())


def test_the_table_has_every_file() -> None:
    assert {name for name, *_ in TABLE} == {path.name for path in FOLDER.glob("*.h5")}


@pytest.mark.parametrize(("name", "size", "accuracy", "digest"), TABLE)
def test_a_file_is_the_one_of_the_table_and_loads(name: str, size: str, accuracy: str, digest: str) -> None:
    data = (FOLDER / name).read_bytes()
    assert len(data) == int(size.replace(",", ""))
    assert hashlib.sha256(data).hexdigest() == digest
    _, config, checkpoint = load_trained(FOLDER / name)
    assert not checkpoint.optimizer
    assert config.train.seed == 0


@pytest.mark.data
@pytest.mark.parametrize(("name", "size", "accuracy", "digest"), TABLE)
def test_it_is_as_accurate_as_the_table_says(
    name: str, size: str, accuracy: str, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--checkpoint", str(FOLDER / name), "--json"]) == 0
    assert f"{100 * json.loads(capsys.readouterr().out)['accuracy']:.2f}" == accuracy
