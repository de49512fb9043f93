"""The numbers of a training step besides its batch: the step itself, learning rates, weights of averages.

All of them follow from the step.  They are numbers of the host, or float64 () on the device, where a CUDA graph reads
them at every replay.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gpucnn.optim.averages import AverageUpdate
from gpucnn.types import Array


@dataclass(frozen=True)
class StepInputs:
    """The numbers of one step.

    Attributes:
        step: counted from 0; int64 () on a device.
        learning_rates: first group of each part of the parameters -> its learning rate; frozen groups are left out.
        average_updates: one for each average of the weights.
    """

    step: Any
    learning_rates: Mapping[str, Any]
    average_updates: tuple[AverageUpdate, ...] = ()

    @property
    def kind(self) -> Hashable:
        """Equal for steps that differ in numbers alone, so that one CUDA graph serves them."""
        updates = tuple((update.weight is None, update.copy_to_model) for update in self.average_updates)
        return tuple(self.learning_rates), updates

    def on_device(self, place: Callable[[str, float], Array], step: Array) -> "StepInputs":
        """The same with every number as an array: ``place`` puts a number, under a name, on the device."""
        rates = {group: place(f"learning rate of {group}", rate) for group, rate in self.learning_rates.items()}
        updates = tuple(
            update if update.weight is None else replace(update, weight=place(f"weight of average {i}", update.weight))
            for i, update in enumerate(self.average_updates)
        )
        return StepInputs(step, rates, updates)
