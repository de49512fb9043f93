"""``benchmarks/batches.py`` from the outside."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "batches.py"


def test_op_and_kernel_are_timed_for_all_ways() -> None:
    words = ["-b", "4", "--rounds", "1", "--images", "20", "--threads", "1", "--json"]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=240, check=True)
    found = json.loads(done.stdout)["found"]
    assert len({(row["images"], row["way"]) for row in found}) == 6
    for row in found:
        assert set(row["milliseconds"]) == {"reference", "cpu"}
        for low, middle, high in row["milliseconds"].values():
            assert 0 < low <= middle <= high
