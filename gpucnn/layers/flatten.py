"""Flatten: an image becomes a vector, row by row.

(L7)   forward:  (N, H, W, C) -> (N, H W C), row-major
(L14)  backward: the gradient takes the input's shape again
"""

from math import prod
from typing import Any

from gpucnn.layers.base import Layer
from gpucnn.types import Array, Shape


class Flatten(Layer):
    """(L7, L14)"""

    equations = (
        "y[e,k] = x[e, k // (width*channels), k // channels % width, k % channels]  # (L7) Flatten",
        "dx[e,i,j,c] = dy[e, (i*width + j)*channels + c]  # (L14) Flatten",
    )

    def forward(self, x: Array) -> Array:
        self.keep(x.shape)
        return x.reshape(x.shape[0], -1)

    def backward(self, dy: Array) -> Array | None:
        (shape,) = self.kept()
        return dy.reshape(shape)

    def symbols(self) -> dict[str, Any]:
        return {"width": lambda x: x.shape[2], "channels": lambda x: x.shape[3]}

    def output_shape(self, shape: Shape) -> Shape:
        return (prod(shape),)
