"""Names and initial values stay: checkpoints are read by name, and a weight's initial value depends on its name.

``names.json`` was written by the last version whose models had batch norm and ReLU in one layer.
"""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from gpucnn import models
from gpucnn.layers import Layer

ROWS = json.loads(Path(__file__).with_name("names.json").read_text(encoding="utf-8"))


def tensors(model: Layer) -> list[str]:
    """Name, shape and group of every parameter and buffer, in order."""
    parameters = [f"{name} {entry.shape} {entry.group}" for name, entry in model.parameters().items()]
    return parameters + [f"{name} {entry.shape} buffer" for name, entry in model.buffers().items()]


def test_no_model_is_gone() -> None:
    assert {row["model"] for row in ROWS} <= set(models.MODELS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['model']} {row['shape']} {row['options']}")
def test_names_and_initial_values_are_those_of_older_checkpoints(row) -> None:
    model = models.build(row["model"], tuple(row["shape"]), **row["options"])
    found = tensors(model)
    assert row.get("tensors", found) == found
    assert sha256("\n".join(found).encode()).hexdigest() == row["names"]
    values = sha256()
    for array in model.initialize(seed=0).state_dict().values():
        values.update(array.tobytes())
    assert values.hexdigest() == row["values"]
