"""Muon's update on the GPU, without cuBLAS: matrix products on cuDNN, the rest by kernels; all of it in a CUDA graph.

Weights, gradients and velocities are float32, norms float64 inside.  Newton-Schulz is float16 with sums in float32,
whatever the net is trained in: it brings singular values anywhere between 0.68 and 1.21, so the last digits of what it
works on count for nothing.  The norm of what is multiplied is 1 at most, and no entry leaves float16's range.

In each step  X <- (a I + b A + c A^2) X  with  A = X X^T : the op's polynomial, in three products.
"""

from typing import Any

import numpy as np

from gpucnn.kernels.gpu.arguments import flat, on_host, scalar
from gpucnn.kernels.gpu.compile import Module
from gpucnn.kernels.gpu.cudnn import matmul
from gpucnn.kernels.gpu.cudnn.geometry import Geometry
from gpucnn.kernels.gpu.cudnn.library import Library
from gpucnn.kernels.gpu.launch import ceil_div, contiguous, empty, launch, line_of, number, vectors
from gpucnn.optim.muon import COEFFICIENTS, SMALLEST
from gpucnn.types import Array, Shape

ELEMENTS = 2**30  # of a matrix, at most
WIDTHS, TRUTHS = (4, 1), ("false", "true")

MODULE = Module(
    "muon.cu",
    [
        *(f"direction<{wide}, {nesterov}>" for wide in WIDTHS for nesterov in TRUTHS),
        *(f"start<{nesterov}, {tall}>" for nesterov in TRUTHS for tall in TRUTHS),
        "polynomial",
        *(f"finish<{tall}>" for tall in TRUTHS),
    ],
)


def padded(shape: Shape) -> tuple[int, int]:
    """The shape of X for weights (F,C): the shorter side first, both multiples of 8 by zeros."""
    height, width = (ceil_div(side, matmul.MULTIPLE) * matmul.MULTIPLE for side in sorted(shape))
    return height, width


def geometries(shape: Shape) -> list[Geometry]:
    """The products for weights (F,C): X X^T, A A and the polynomial times X."""
    height, width = padded(shape)
    return [
        matmul.nt_geometry(height, height, width),
        matmul.nt_geometry(height, height, height),
        matmul.nn_geometry(height, width, height),
    ]


class Muon:
    """The update with products by a library."""

    def __init__(self, library: Library) -> None:
        self.products = matmul.Products(library)

    def refusal(self, shape: Shape) -> str:
        """Why cuDNN does not compute the products for weights (F,C); "" where it does."""
        return self.products.refusal(*geometries(shape))

    def accepts(self, w: Array, g: Array, velocity: Array, lr: Any, *numbers: Any) -> bool:
        """Float32 matrices of one shape, whose products in float16 cuDNN computes; the rate may lie on the device."""
        matrices = flat(w, g, velocity) and w.ndim == 2 and w.size < ELEMENTS
        return bool(matrices and scalar(lr, np.float64) and on_host(*numbers) and not self.refusal(w.shape))

    def muon_update(
        self, w: Array, g: Array, velocity: Array, lr: Any, momentum: float, nesterov: bool, steps: int
    ) -> None:
        """One step for w (F,C); g and velocity are alike; w and velocity change in place."""
        g = contiguous(g)
        (rows, columns), (height, width) = w.shape, padded(w.shape)
        tall, looking = TRUTHS[rows > columns], TRUTHS[bool(nesterov)]
        sides, mu, tiny = (np.int32(rows), np.int32(columns)), np.float32(momentum), np.float64(SMALLEST)

        _, wide = vectors(0, w, g, velocity)
        grid = line_of(ceil_div(w.size, wide))
        blocks = grid.blocks[0]
        partial = empty((2, blocks), "float64")
        launch(MODULE, f"direction<{wide}, {looking}>", grid, w, g, velocity, np.int64(w.size), mu, partial)

        x = empty((height, width), "float16")
        norms, size = (partial, np.int32(blocks), tiny), (np.int32(height), np.int32(width))
        launch(MODULE, f"start<{looking}, {tall}>", line_of(x.size), g, velocity, mu, *norms, *sides, *size, x)
        for _ in range(steps):
            x = self.products.nn(self.polynomial(x), x)

        numbers = (np.float64(rows**0.5), *number(lr, np.float64), *sides, np.int32(width))
        launch(MODULE, f"finish<{tall}>", line_of(w.size), w, x, *norms, *numbers)

    def polynomial(self, x: Array) -> Array:
        """X (R,C) -> a I + b A + c A^2 (R,R) with A = X X^T."""
        gram = self.products.nt(x, x)
        result = self.products.nt(gram, gram)  # A A: A is symmetric
        numbers = (*map(np.float32, COEFFICIENTS), np.int32(len(x)))
        launch(MODULE, "polynomial", line_of(ceil_div(result.size, matmul.MULTIPLE)), gram, *numbers, result)
        return result
