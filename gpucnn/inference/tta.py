"""Test-time augmentation: a model's logits averaged over several views of an image (arXiv 2404.00498).

    (V1)  logits(x) = sum_v weight_v model(view_v(x)),    sum_v weight_v = 1

A view is the image moved by a pixel or not, mirrored or not.  What moves in at the border is reflected there.
"""

from collections.abc import Callable
from dataclasses import dataclass

from gpucnn.backend import array_module
from gpucnn.errors import ShapeError
from gpucnn.types import Array


@dataclass(frozen=True)
class View:
    """How much it counts, how far the window moves down and to the right (pixels), whether it is then mirrored."""

    weight: float
    down: int = 0
    right: int = 0
    mirror: bool = False


VIEWS: dict[str, tuple[View, ...]] = {
    "none": (View(1.0),),
    "flip": (View(0.5), View(0.5, mirror=True)),
    "shift": (View(0.5), View(0.25, -1, -1), View(0.25, 1, 1)),
    "multicrop": tuple(
        View(weight / 2, step, step, mirror)
        for step, weight in ((0, 0.5), (-1, 0.25), (1, 0.25))
        for mirror in (False, True)
    ),
}
"""Name -> views: the image; with its mirror image; moved along the diagonal too, as suits digits; and all of that."""


def see(x: Array, view: View) -> Array:
    """x (N,H,W,C) -> the view of each image, (N,H,W,C)."""
    xp = array_module(x)
    for axis, step in ((1, view.down), (2, view.right)):
        if step:
            size = x.shape[axis]
            if abs(step) >= size:
                raise ShapeError(f"a view {step} pixels aside of images {x.shape[1:]}: give at most {size - 1}")
            place = abs(xp.arange(size) + step)  # reflected at the near border
            place = (size - 1) - abs((size - 1) - place)  # and at the far one
            x = x[:, place] if axis == 1 else x[:, :, place]
    return x[:, :, ::-1].copy() if view.mirror else x  # kernels want it laid out


def mean_over_views(model: Callable[[Array], Array], x: Array, views: tuple[View, ...]) -> Array:
    """(V1)  images x (N,H,W,C) -> logits (N,K)."""
    logits = views[0].weight * model(see(x, views[0]))
    for view in views[1:]:
        logits += view.weight * model(see(x, view))
    return logits
