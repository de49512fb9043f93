"""``benchmarks/ops.py`` from the outside."""

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "ops.py"


def test_every_layer_of_lenet_is_timed_forward_and_back() -> None:
    words = ["-w", "a", "-b", "2", "--rounds", "1", "--threads", "1", "--json"]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=240, check=True)
    found = json.loads(done.stdout)
    timings = found["timings"]
    kinds = [timing["layer"].partition("(")[0] for timing in timings if timing["part"] == "forward"]
    assert kinds.count("Conv2D") == kinds.count("MaxPool2D") == 2
    assert kinds.count("Linear") == 3
    assert len(timings) == 2 * len(kinds)
    names = {"gpucnn"} | ({"pytorch contiguous", "pytorch channels_last"} if find_spec("torch") else set())
    for timing in timings:
        assert set(timing["milliseconds"]) == names
        assert all(math.isfinite(time) and time > 0 for time in timing["milliseconds"].values())
        assert (timing["ratio"] is not None) == (len(names) > 1)
