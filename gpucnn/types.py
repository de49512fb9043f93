"""The few types that every room of the house shares."""

from typing import Any, TypeAlias

Array: TypeAlias = Any
"""A ``numpy.ndarray`` or a ``cupy.ndarray``.  The two share no base class, hence ``Any``; the shape and
the dtype of every array stand in the docstrings and in trailing comments."""

Shape: TypeAlias = tuple[int, ...]
Pair: TypeAlias = tuple[int, int]
"""(height, width)"""

Padding: TypeAlias = tuple[Pair, Pair]
"""((top, bottom), (left, right)) in pixels"""
