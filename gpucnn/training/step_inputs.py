"""What a step does besides what its batch says: numbers that a schedule and the averages give it.

All of it is a function of the step.  Each number is the host's, or lies on the device (float64, ()), where a CUDA graph
reads it at every replay.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gpucnn.optim.averages import Turn
from gpucnn.types import Array


@dataclass(frozen=True)
class Pace:
    """One step's numbers.

    Attributes:
        step: counted from 0; int64 () on a device.
        rates: group at the head of a part of the parameters -> its learning rate; what is held fixed is left out.
        turns: what each average does.
    """

    step: Any
    rates: Mapping[str, Any]
    turns: tuple[Turn, ...] = ()

    @property
    def kind(self) -> Hashable:
        """Equal for steps that differ in numbers alone: these can be the same CUDA graph."""
        return tuple(self.rates), tuple((turn.share is None, turn.pull) for turn in self.turns)

    def by(self, tell: Callable[[str, float], Array], step: Array) -> "Pace":
        """The same pace with every number where ``tell``, given a name for it, has put it."""
        rates = {group: tell(f"rate of {group}", rate) for group, rate in self.rates.items()}
        turns = tuple(
            turn if turn.share is None else replace(turn, share=tell(f"share of average {i}", turn.share))
            for i, turn in enumerate(self.turns)
        )
        return Pace(step, rates, turns)
