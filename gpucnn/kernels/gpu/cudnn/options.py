"""How convolutions may be computed: a few switches, from the environment or from a program."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from gpucnn.errors import UsageError

SWITCHES = {
    "cudnn": "GPUCNN_CUDNN",
    "tf32": "GPUCNN_TF32",
    "deterministic": "GPUCNN_DETERMINISTIC",
    "autotune": "GPUCNN_AUTOTUNE",
    "stem": "GPUCNN_STEM",
}
WORKSPACE = "GPUCNN_WORKSPACE_MIB"


@dataclass(frozen=True)
class Options:
    """Which of cuDNN's engines may be used, how one is chosen, and what a kernel of ours does in its place.

    Attributes:
        cudnn: whether it is used at all.
        tf32: float32 numbers may be rounded to 10 bits of mantissa before they are multiplied (tensor cores do
            that); sums are float32 either way.
        deterministic: only engines that give the same bits each time.
        autotune: time the engines when a shape is first computed, and keep the fastest; else take the first that
            cuDNN's heuristics name.
        workspace_mib: engines that want more scratch memory than this are left out.
        stem: convolutions of few channels run forward on ``stem.cu``.
    """

    cudnn: bool = True
    tf32: bool = False
    deterministic: bool = True
    autotune: bool = True
    workspace_mib: int = 512
    stem: bool = True

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Options":
        """The defaults, changed by what the environment says: switches are 0 or 1.

        Raises:
            UsageError: a variable has another value.
        """
        values: dict[str, bool | int] = {}
        for field, variable in SWITCHES.items():
            text = environment.get(variable, "")
            if text not in ("", "0", "1"):
                raise UsageError(f"{variable}={text!r}: give 0 or 1")
            if text:
                values[field] = text == "1"
        if text := environment.get(WORKSPACE, ""):
            if not text.isdecimal():
                raise UsageError(f"{WORKSPACE}={text!r}: give a number of MiB")
            values["workspace_mib"] = int(text)
        return cls(**values)  # type: ignore[arg-type]

    def with_tf32(self, allowed: bool) -> "Options":
        """The same with TF32 where it is allowed here or by these options."""
        return replace(self, tf32=allowed or self.tf32)

    def __str__(self) -> str:
        """As in ``tf32=0 deterministic=1 workspace=512``: what decides which engines there are to choose from."""
        return f"tf32={self.tf32:d} deterministic={self.deterministic:d} workspace={self.workspace_mib}"
