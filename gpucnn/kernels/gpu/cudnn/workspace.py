"""Scratch memory of cuDNN's engines: one buffer per stream, which grows."""

from collections.abc import Callable
from typing import Any

from gpucnn.errors import DeviceError


class Workspace:
    """A buffer for each stream: what runs on one stream runs in order and may share it.

    A buffer that is outgrown is kept, since a captured CUDA graph may have its address in it.  Sizes are powers of two,
    so all that was outgrown is less than what is in use.

    Args:
        allocate: bytes -> an object with the address ``ptr`` that owns the memory.
    """

    def __init__(self, allocate: Callable[[int], Any]) -> None:
        self.allocate = allocate
        self.buffers: dict[int, list[Any]] = {}  # stream -> buffers, the one in use last
        self.sizes: dict[int, int] = {}

    def address(self, size: int, stream: Any) -> int:
        """The address of at least ``size`` bytes on a stream; 0 where none are wanted.

        Args:
            stream: has its address ``ptr`` and ``is_capturing()``.

        Raises:
            DeviceError: it would have to grow while the stream is captured.
        """
        if size == 0:
            return 0
        held = self.sizes.get(stream.ptr, 0)
        if size > held:
            if stream.is_capturing():
                raise DeviceError(
                    f"cuDNN needs {size} bytes of workspace and this stream has {held}, but memory cannot be allocated "
                    "during the capture of a CUDA graph: run the same step once on the same stream before capturing"
                )
            wanted = 1 << (size - 1).bit_length()
            self.buffers.setdefault(stream.ptr, []).append(self.allocate(wanted))
            self.sizes[stream.ptr] = wanted
        return int(self.buffers[stream.ptr][-1].ptr)
