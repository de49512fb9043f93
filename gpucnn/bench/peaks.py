"""Peak rates of GPUs from NVIDIA's data sheets: dense arithmetic without sparsity, sums in float32."""

from dataclasses import dataclass
from math import inf

from gpucnn.layers import Layer
from gpucnn.types import Shape


@dataclass(frozen=True)
class Peak:
    """TFLOP/s in float32 without tensor cores and in float16 or bfloat16 with them, TB/s of memory."""

    float32: float
    mixed: float
    memory: float
    source: str


HOPPER, H200, AMPERE = (f"NVIDIA {gpu} Tensor Core GPU data sheet" for gpu in ("H100", "H200", "A100"))

PEAKS: dict[str, Peak] = {
    "NVIDIA H100 80GB HBM3": Peak(66.9, 989.4, 3.35, HOPPER),  # SXM5
    "NVIDIA H100 PCIe": Peak(51.2, 756.5, 2.0, HOPPER),
    "NVIDIA H200": Peak(66.9, 989.4, 4.8, H200),  # SXM5
    "NVIDIA A100-SXM4-40GB": Peak(19.5, 312.0, 1.555, AMPERE),
    "NVIDIA A100-SXM4-80GB": Peak(19.5, 312.0, 2.039, AMPERE),
    "NVIDIA A100-PCIE-40GB": Peak(19.5, 312.0, 1.555, AMPERE),
    "NVIDIA A100 80GB PCIe": Peak(19.5, 312.0, 1.935, AMPERE),
}
"""The driver's name of a GPU -> its peak."""


def training_flops(model: Layer, shape: Shape, batch_size: int) -> float:
    """Floating-point operations of a training step: forward, and twice as many backward.

    The input gradient of the first layer is counted, though it is not computed.
    """
    return 3.0 * model.flops(shape) * batch_size


def peak_fraction(gpu: str, precision: str, flops: float, seconds: float) -> float | None:
    """The fraction reached of the GPU's arithmetic peak, without tensor cores in float32; None if that is not known."""
    peak = PEAKS.get(gpu)
    if peak is None or not 0.0 < seconds < inf:
        return None
    return flops / seconds / 1e12 / (peak.float32 if precision == "float32" else peak.mixed)
