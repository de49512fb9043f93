"""How far a backend's results are from the reference's: layer by layer, for a whole net, and over training steps.

Three views, because each hides what another one shows:

    layerwise   every layer alone, on inputs from the reference: errors do not add up, so a wrong kernel is named
    whole       one forward and backward pass of the net, where errors do add up; a third run in float64 shows how much
                of the distance between two float32 backends is rounding that both have
    training    several steps with an optimizer: loss curves and weights

The measure of distance is in ``distance``, the tolerances are in ``layerwise``.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpucnn import random
from gpucnn.backend import REFERENCE, Backend
from gpucnn.checks.parity.layerwise import Difference, layer_by_layer, loss_alone, optimizers_alone
from gpucnn.checks.parity.record import record
from gpucnn.checks.parity.whole import Batch, Curves, Deviation, train, whole_net
from gpucnn.layers import Layer
from gpucnn.layers.parameter import DECAYED
from gpucnn.types import Array, Shape

DIFFERENT_BATCHES = 4  # of training, in turn: noise that is seen again can be learned


@dataclass(frozen=True)
class Parity:
    """A candidate backend compared with the reference on one model; the three modules define the rows."""

    model: str
    candidate: str
    input_shape: Shape
    batch_size: int
    seed: int
    layers: list[Difference]
    whole: list[Deviation]
    training: Curves | None

    @property
    def passed(self) -> bool:
        """Whether every layer alone is within its tolerance; the other two views are for information."""
        return all(row.passed for row in self.layers)

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON, with null in place of NaN and infinity, which JSON does not have."""
        rows = [{**asdict(row), "passed": row.passed} for row in self.layers]
        text = json.dumps({**asdict(self), "layers": rows, "passed": self.passed})
        found: dict[str, Any] = json.loads(text, parse_constant=lambda constant: None)
        return found


def compare(
    build: Callable[[], Layer],
    input_shape: Shape,
    candidate: Backend,
    *,
    name: str = "",
    batch_size: int = 8,
    seed: int = 0,
    steps: int = 0,
) -> Parity:
    """All three views of one model.

    Args:
        build: makes a new model, not initialised; its output is logits (N,K).
        input_shape: of one image (H,W,C); images are normal noise, labels are uniform.
        candidate: the backend to check.
        steps: of training; 0 skips the third view.
    """

    def fresh(backend: Backend, dtype: str = "float32") -> Layer:
        model = build().initialize(seed, backend, dtype)
        model.load_state_dict({key: value.astype(dtype) for key, value in state.items()})
        return model

    state = livened(build().initialize(seed), seed)
    (classes,) = build().output_shape(input_shape)
    batches = [batch(k % DIFFERENT_BATCHES, batch_size, input_shape, classes, seed) for k in range(steps or 1)]

    def three() -> tuple[Layer, Layer, Layer]:
        return fresh(REFERENCE), fresh(candidate), fresh(REFERENCE, "float64")

    reference, theirs, exact = (record(model, *batches[0]) for model in three())
    alone = [*layer_by_layer(fresh(REFERENCE), fresh(candidate), reference), *loss_alone(candidate, reference)]
    alone += optimizers_alone(fresh(REFERENCE), fresh(candidate), reference)
    curves = train(*three(), batches) if steps else None
    whole = whole_net(reference, theirs, exact)
    return Parity(name, candidate.name, tuple(input_shape), batch_size, seed, alone, whole, curves)


def batch(number: int, size: int, shape: Shape, classes: int, seed: int) -> Batch:
    """Images (N,H,W,C) of noise in float32, and labels (N,)."""
    x = random.normal((size, *shape), seed=seed, stream=random.stream_id("parity images"), step=number)
    labels = random.integers((size,), classes, seed=seed, stream=random.stream_id("parity labels"), step=number)
    return x.astype(np.float32), labels


def livened(model: Layer, seed: int) -> dict[str, Array]:
    """The state of a new model with noise added to biases, scales and statistics: zeros and ones hide mistakes."""
    state = model.state_dict()
    for name in state:
        parameter = model.parameters().get(name)
        if parameter is None or parameter.group not in DECAYED:
            noise = 0.1 * random.normal(state[name].shape, seed=seed, stream=random.stream_id(name))
            state[name] += (abs(noise) if parameter is None else noise).astype(state[name].dtype)
    return state
