"""What is timed, for gpucnn and PyTorch alike."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from gpucnn.types import Shape


@dataclass(frozen=True)
class Task:
    """What is timed: one step of a model at a batch size; ``mode`` is "train" or "eval"."""

    framework: str
    model: str
    input_shape: Shape
    batch_size: int
    mode: str = "train"
    threads: int = 2
    layout: str = "channels_last"  # PyTorch's memory format
    precision: str = "float32"  # or mixed: "float16", "bfloat16"
    device: str = "cpu"  # PyTorch's: "cpu" or "cuda"
    compiled: str = ""  # a mode of torch.compile; eager where empty
    cuda_graph: str = "auto"  # ours: "auto" or "off"
    options: dict[str, Any] = field(default_factory=dict)  # of the model

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        settings = json.loads(text)
        return cls(**{**settings, "input_shape": tuple(settings["input_shape"])})
