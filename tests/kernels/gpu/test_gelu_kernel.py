"""The polynomial that stands for the normal distribution's tail where GELU is stored in float16."""

import re
from math import erfc, exp, sqrt

from gpucnn.kernels.gpu.compile import FOLDER


def test_the_tail_is_as_near_as_the_source_says() -> None:
    """Its numbers in float64 beside erfc; what float32 and the quick quotient add is for other tests."""
    source = (FOLDER / "elementwise.cu").read_text(encoding="utf-8")
    said = float(re.search(r"smallest relative error, ([\d.e-]+);", source)[1])
    body = source.partition("struct Normal<__half>")[2].partition("struct Gelu")[0]
    slope = float(re.search(r"fmaf\(([\d.]+)f, fabsf", body)[1])
    highest = re.search(r"r = fmaf\((-?[\d.]+)f, t, (-?[\d.]+)f\)", body).groups()
    factors = [*map(float, highest), *map(float, re.findall(r"fmaf\(r, t, (-?[\d.]+)f\)", body))]
    assert len(factors) == 6
    worst = 0.0
    for x in (k / 100 for k in range(1201)):
        t, r = 1.0 / (1.0 + slope * x), 0.0
        for factor in factors:
            r = r * t + factor
        worst = max(worst, abs(r * t * exp(-0.5 * x * x) / (0.5 * erfc(x / sqrt(2.0))) - 1.0))
    assert 0.5 * said < worst <= said
