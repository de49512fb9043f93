"""The few types that the whole package uses."""

from typing import Any, TypeAlias

Array: TypeAlias = Any
"""A ``numpy.ndarray`` or a ``cupy.ndarray``.  The two share no base class, hence ``Any``; shapes and
dtypes are in docstrings and trailing comments."""

Shape: TypeAlias = tuple[int, ...]
Pair: TypeAlias = tuple[int, int]
"""(height, width)"""

Padding: TypeAlias = tuple[Pair, Pair]
"""((top, bottom), (left, right)) in pixels"""
