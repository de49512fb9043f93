"""No kernel of the CPU reads or writes outside its arrays: see ``guard_pages.py``."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpucnn import layers
from gpucnn.devices import get_backend

SCRIPT = Path(__file__).with_name("guard_pages.py")
TWICE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from guard_pages import Guard
array = Guard().empty((3, 5))
array[...] = 1
print(array.sum(), flush=True)
np.lib.stride_tricks.as_strided(array, (20,))[15] = 2
print("survived")
"""


@pytest.mark.skipif(not get_backend("cpu").kernels, reason="no kernels here")
@pytest.mark.parametrize("seed", [2, 3])
def test_every_kernel_stays_inside_its_arrays(seed: int) -> None:
    command = [sys.executable, str(SCRIPT), "--cases", "2500", "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, "\n".join([done.stdout[-500:], *done.stderr.splitlines()[-30:]])
    assert "0 wrong, no fault; ops without a case: none" in done.stdout


def test_a_guard_page_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE, str(SCRIPT.parent)], capture_output=True, text=True)
    assert done.stdout == "15.0\n"
    assert done.returncode < 0


@pytest.mark.skipif(not get_backend("cpu").kernels, reason="no kernels here")
def test_one_filter_on_small_images_keeps_the_heap() -> None:
    head = layers.Conv2D(8, 1, 1).initialize(0, get_backend("cpu"))
    x = np.ones((1, 4, 4, 8), np.float32)
    expected = float(head.weight.data.sum())
    for _ in range(3000):
        y = head.forward(x)
        np.testing.assert_allclose(y, expected, rtol=1e-5)
