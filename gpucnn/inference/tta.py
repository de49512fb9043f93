"""Test-time augmentation: a model's logits averaged over several views of an image (arXiv 2404.00498).

    (V1)  logits(x) = sum_v weight_v model(view_v(x)),    sum_v weight_v = 1

A view is the image, shifted by a pixel or not, mirrored or not.  Pixels beyond a border are reflected there.
"""

from collections.abc import Callable
from dataclasses import dataclass

from gpucnn.backend import array_module
from gpucnn.errors import ShapeError
from gpucnn.types import Array


@dataclass(frozen=True)
class View:
    """Its weight in the average, the window's shift down and to the right in pixels, whether it is then mirrored."""

    weight: float
    down: int = 0
    right: int = 0
    mirror: bool = False


SHIFTED = (View(0.5), View(0.25, -1, -1), View(0.25, 1, 1))
VIEWS: dict[str, tuple[View, ...]] = {
    "none": (View(1.0),),
    "flip": (View(0.5), View(0.5, mirror=True)),
    "shift": SHIFTED,
    "multicrop": tuple(View(v.weight / 2, v.down, v.right, mirror) for v in SHIFTED for mirror in (False, True)),
}
"""Name -> views: the image alone; with its mirror image; with two diagonal shifts, for digits; and all of these."""


def apply_view(x: Array, view: View) -> Array:
    """Images x (N,H,W,C) -> their view (N,H,W,C).

    Raises:
        ShapeError: the images are too small for the shift.
    """
    xp = array_module(x)
    for axis, step in ((1, view.down), (2, view.right)):
        if step:
            size = x.shape[axis]
            if abs(step) >= size:
                raise ShapeError(f"a view shifts images {x.shape[1:]} by {step} pixels: give at most {size - 1}")
            index = abs(xp.arange(size) + step)  # reflected at the near border
            index = (size - 1) - abs((size - 1) - index)  # and at the far one
            x = x[:, index] if axis == 1 else x[:, :, index]
    return x[:, :, ::-1].copy() if view.mirror else x  # contiguous, for the kernels


def mean_over_views(forward: Callable[[Array], Array], x: Array, views: tuple[View, ...]) -> Array:
    """(V1)  images x (N,H,W,C) -> logits (N,K)."""
    logits = views[0].weight * forward(apply_view(x, views[0]))
    for view in views[1:]:
        logits += view.weight * forward(apply_view(x, view))
    return logits
