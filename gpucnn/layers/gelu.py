"""GELU (Hendrycks and Gimpel, arXiv 1606.08415): x times the probability that a standard normal is below x.

    gelu(x) = x P(x),            P(x) = erfc(-x / sqrt 2) / 2        dx = dy (P(x) + x p(x))
    gelu_tanh(x) = x (1 + tanh u) / 2 = x sigmoid(2u),   u = sqrt(2/pi) (x + 0.044715 x^3)

with p the normal density.  NumPy has no erfc, so P is computed here by array code that runs on any backend.
"""

from math import pi, sqrt

from gpucnn.backend import accumulator_dtype, array_module
from gpucnn.errors import UsageError
from gpucnn.layers.activations import Activation, sigmoid, sigmoid_and_slope
from gpucnn.types import Array

# (1 + 2z) e^{z^2} erfc(z) for z >= 0 as a Chebyshev series in s = (z - 3.75) / (z + 3.75), interpolated at
# the Chebyshev nodes of degree 20; 4e-15 relative to SciPy's erfcx over the whole range.
ERFCX_CENTRE = 3.75
FAR = 60.0  # P is 0 or 1 and p is 0 to the last bit beyond, and a square or a cube does not overflow up to there
ERFCX_SERIES = (
    1.1775789345674017,
    -0.004590054580646492,
    -0.08424913336651788,
    0.059209939998191935,
    -0.026658668435305854,
    0.009074997670705172,
    -0.002413163540417904,
    0.0004907758365257332,
    -6.916973302525133e-05,
    4.139027985862757e-06,
    7.740383063824306e-07,
    -2.1886401048096403e-07,
    1.0764999018658571e-08,
    4.521959824322274e-09,
    -7.754400465712195e-10,
    -6.318099760590532e-11,
    2.8687948982109012e-11,
    1.945342032801114e-13,
    -9.662823385852902e-13,
    3.24728372641042e-14,
    3.302041832565104e-14,
)


def normal_cdf(x: Array) -> Array:
    """P(x) of the standard normal, by Clenshaw's recurrence; accurate in both tails, relative to their size."""
    xp = array_module(x)
    x = x.astype(accumulator_dtype(x), copy=False)  # the recurrence needs more digits than float16 has
    z = xp.minimum(abs(x), FAR) * sqrt(0.5)
    s = (z - ERFCX_CENTRE) / (z + ERFCX_CENTRE)
    newer, older = xp.zeros_like(s), xp.zeros_like(s)
    for coefficient in reversed(ERFCX_SERIES[1:]):
        newer, older = 2 * s * newer - older + coefficient, newer
    erfcx = (s * newer - older + ERFCX_SERIES[0]) / (1 + 2 * z)
    tail = 0.5 * xp.exp(-z * z) * erfcx
    return xp.where(x < 0, tail, 1 - tail)


def gelu(x: Array) -> Array:
    """Exact GELU."""
    return (x * normal_cdf(x)).astype(x.dtype, copy=False)


def gelu_grad(dy: Array, x: Array) -> Array:
    """dx = dy (P(x) + x p(x))."""
    wide = x.astype(accumulator_dtype(x), copy=False)
    near = array_module(x).clip(wide, -FAR, FAR)
    density = array_module(x).exp(-0.5 * near * near) * (1 / sqrt(2 * pi))
    return (dy * (normal_cdf(x) + wide * density)).astype(dy.dtype, copy=False)


def gelu_tanh(x: Array) -> Array:
    """GELU by its tanh approximation, at most 5e-4 from the exact one."""
    wide = x.astype(accumulator_dtype(x), copy=False)  # in float16 a cube overflows from 41 on
    near = array_module(x).clip(wide, -FAR, FAR)
    y = wide * sigmoid(2 * sqrt(2 / pi) * (near + 0.044715 * near * near * near))
    return y.astype(x.dtype, copy=False)


def gelu_tanh_grad(dy: Array, x: Array) -> Array:
    """dx = dy (s + x s (1 - s) 2 du/dx),  s = sigmoid(2u),  du/dx = sqrt(2/pi) (1 + 3 * 0.044715 x^2)."""
    wide = x.astype(accumulator_dtype(x), copy=False)
    near = array_module(x).clip(wide, -FAR, FAR)
    s, slope = sigmoid_and_slope(2 * sqrt(2 / pi) * (near + 0.044715 * near * near * near))
    inner = 2 * sqrt(2 / pi) * (1 + 3 * 0.044715 * near * near)
    return (dy * (s + wide * (slope * inner))).astype(dy.dtype, copy=False)


EXACT = (
    f"cdf[...] = (1 + erf(x[...] * {sqrt(0.5)})) / 2  # normal_cdf",
    f"density[...] = exp(-x[...]**2 / 2) * {1 / sqrt(2 * pi)}  # gelu_grad",
    "y[...] = x[...] * cdf[...]  # gelu",
    "dx[...] = dy[...] * (cdf[...] + x[...] * density[...])  # gelu_grad",
)
APPROXIMATE = (
    f"t[...] = tanh({sqrt(2 / pi)} * (x[...] + 0.044715 * x[...]**3))  # gelu_tanh",
    f"dt[...] = (1 - t[...]**2) * {sqrt(2 / pi)} * (1 + 3 * 0.044715 * x[...]**2)  # gelu_tanh_grad",
    "y[...] = x[...] * (1 + t[...]) / 2  # gelu_tanh",
    "dx[...] = dy[...] * ((1 + t[...]) / 2 + x[...] / 2 * dt[...])  # gelu_tanh_grad",
)


class GELU(Activation):
    """Exact by default; ``approximate="tanh"`` for the approximation.

    Raises:
        UsageError: another ``approximate``.
    """

    cost = 10

    def __init__(self, approximate: str = "none") -> None:
        if approximate not in ("none", "tanh"):
            raise UsageError(f"GELU(approximate={approximate!r}): give 'none' or 'tanh'")
        self.approximate = approximate
        exact = approximate == "none"
        self.op, self.grad_op = (gelu, gelu_grad) if exact else (gelu_tanh, gelu_tanh_grad)
        self.equations = EXACT if exact else APPROXIMATE
