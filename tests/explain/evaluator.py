"""The equations' trees by plain recursion, as a second reading of them beside the page's."""

from itertools import product
from math import erf, exp, inf, log, prod, sqrt, tanh
from typing import Any

import numpy as np

from gpucnn.explain.equations import Equation
from gpucnn.explain.recording import LayerRecord

FUNCTIONS = {"exp": exp, "log": log, "tanh": tanh, "sqrt": sqrt, "erf": erf}


class Outside(Exception):
    """An index outside of its array."""


class Evaluator:
    """Numbers of one layer by its equations."""

    def __init__(self, layer: LayerRecord) -> None:
        self.arrays = {symbol: array.astype(np.float64) for symbol, array in layer.arrays.items()}
        self.equations = {equation.name: equation for equation in layer.equations}
        self.known: dict[Any, float] = {}

    def number(self, name: str, index: tuple[int, ...]) -> float:
        """One element as its equation says, not as it was recorded."""
        if (name, index) not in self.known:
            equation = self.equations[name]
            self.known[name, index] = self.value(equation.tree, bind(equation, index))
        return self.known[name, index]

    def value(self, tree: Any, env: dict[str, Any]) -> Any:
        match tree:
            case ["number", value]:
                return value
            case ["index", name]:
                return env[name]
            case ["array", name, indices]:
                index = tuple(i for part in indices for i in self.places(part, env))
                if name not in self.arrays:
                    return self.number(name, index)
                if any(not 0 <= i < size for i, size in zip(index, self.arrays[name].shape, strict=True)):
                    raise Outside
                return float(self.arrays[name][index])
            case ["call", "max", parts]:
                return max(self.value(part, env) for part in parts)
            case ["call", "where", [condition, yes, no]]:
                return self.value(yes if self.value(condition, env) else no, env)
            case ["call", function, [part]]:
                return FUNCTIONS[function](self.value(part, env))
            case ["do", operator, left, right]:
                return apply(operator, self.value(left, env), self.value(right, env))
            case ["loop", kind, ranges, body]:
                return self.loop(kind, ranges, body, env)
        raise AssertionError(tree)

    def places(self, tree: Any, env: dict[str, Any]) -> tuple[int, ...]:
        return env["..."] if tree == ["rest"] else (self.value(tree, env),)

    def loop(self, kind: str, ranges: Any, body: Any, env: dict[str, Any]) -> float:
        spaces = [product(*map(range, size)) if name == "..." else range(size) for name, size in ranges]
        terms = []
        for values in product(*map(list, spaces)):
            try:
                terms.append(self.value(body, env | dict(zip([name for name, _ in ranges], values, strict=True))))
            except Outside:
                terms.append(0.0 if kind in ("sum", "mean") else -inf)
        if kind in ("sum", "mean"):
            return sum(terms) / (len(terms) if kind == "mean" else 1)
        return max(terms) if kind == "max" else terms.index(max(terms))


def bind(equation: Equation, index: tuple[int, ...]) -> dict[str, Any]:
    names = equation.indices
    if names[0] == "...":
        behind = len(names) - 1
        cut = len(index) - behind
        return {"...": index[:cut], **dict(zip(names[1:], index[cut:], strict=True))}
    return dict(zip(names, index, strict=True))


def apply(operator: str, a: Any, b: Any) -> Any:
    return {
        "+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b, "//": lambda: a // b,
        "%": lambda: a % b, "**": lambda: a**b, "==": lambda: a == b, ">": lambda: a > b, ">=": lambda: a >= b,
        "<": lambda: a < b, "<=": lambda: a <= b,
    }[operator]()  # fmt: skip


def elements(shape: tuple[int, ...], count: int, seed: int) -> list[tuple[int, ...]]:
    """Some elements of an array of this shape."""
    some = np.random.default_rng(seed).permutation(prod(shape))[:count]
    return [tuple(int(i) for i in np.unravel_index(place, shape)) for place in some]
