"""Equations of layers as text, read into trees: one description for what a page shows and what it adds up.

An equation stands beside its layer, in Python's syntax:

    y[e,i,j,f] = sum[m,n,c](x[e, i*sh + m - top, j*sw + n - left, c] * w[f,m,n,c]) + b[f]     # (L1, L3) conv2d

Indices count from 0 and ``e`` is the example in the batch.  ``sum[m,n](...)`` runs over all values that the indices
have in the arrays they stand alone in, or up to ``sum[m:kh](...)``; ``mean``, ``max`` and ``argmax`` likewise.
An index outside of an array leaves the term out.  ``...`` stands for all leading axes.  A left side that is none of
the layer's arrays defines a name for the other equations.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpucnn.errors import UsageError
from gpucnn.types import Shape

Tree = list[Any]
"""["number", value], ["index", name], ["rest"], ["array", name, [tree, ...]], ["do", operator, tree, tree],
["call", function, [tree, ...]] or ["loop", kind, [[index, size or shape], ...], tree]."""

OPERATORS: dict[type, str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.Eq: "==", ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<=",
}  # fmt: skip
LOOPS = ("sum", "mean", "max", "argmax")
FUNCTIONS = ("max", "exp", "log", "tanh", "sqrt", "erf", "where")


@dataclass(frozen=True)
class Equation:
    """``name[indices] = tree``, and where it comes from: "(L1, L3) conv2d"."""

    name: str
    indices: tuple[str, ...]
    tree: Tree
    source: str


def read(text: str, numbers: Mapping[str, float], shapes: Mapping[str, Shape]) -> Equation | None:
    """An equation of a layer with these numbers and arrays; None where its left side is a gradient that there is not.

    Terms of arrays that a layer lacks, as a convolution without bias, are left out.

    Raises:
        UsageError: text that is no equation.
    """
    equation, _, source = text.partition("#")
    try:
        (assignment,) = ast.parse(equation.strip()).body
        assert isinstance(assignment, ast.Assign)
        left = assignment.targets[0]
        assert isinstance(left, ast.Subscript)
        assert isinstance(left.value, ast.Name)
        name = left.value.id
        if name[0] == "d" and name[1:] in shapes and name not in shapes:
            return None
        reader = Reader(numbers, shapes)
        indices = tuple(ast.unparse(index) for index in parts(left.slice))
        tree = reader.tree(assignment.value)
    except (AssertionError, SyntaxError, ValueError) as error:
        raise UsageError(f"{text!r} is not an equation that can be read: {error}") from None
    return None if tree is None else Equation(name, indices, tree, source.strip())


def parts(node: ast.expr) -> list[ast.expr]:
    """What stands between brackets, separated by commas."""
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]


class Reader:
    """Python's tree -> ours, with a layer's numbers in place of their names and the sizes of loops."""

    def __init__(self, numbers: Mapping[str, float], shapes: Mapping[str, Shape]) -> None:
        self.numbers, self.shapes = numbers, shapes

    def tree(self, node: ast.expr) -> Tree | None:
        """None for what a layer lacks."""
        match node:
            case ast.Constant(value=int() | float() as value):
                return ["number", value]
            case ast.Constant(value=value) if value is Ellipsis:
                return ["rest"]
            case ast.Name(id=name):
                return ["number", self.numbers[name]] if name in self.numbers else ["index", name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.combine("-", ["number", 0], self.tree(operand))
            case ast.BinOp(left=left, op=op, right=right):
                return self.combine(OPERATORS[type(op)], self.tree(left), self.tree(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self.combine(OPERATORS[type(op)], self.tree(left), self.tree(right))
            case ast.Subscript(value=ast.Name(id=name), slice=indices):
                if name in self.numbers:  # the layer has a number of this name where others have an array
                    return ["number", self.numbers[name]]
                if self.shapes.get(name, ()) is None:
                    return None
                return ["array", name, [self.tree(index) for index in parts(indices)]]
            case ast.Call(func=ast.Subscript(value=ast.Name(id=kind), slice=indices), args=[body]) if kind in LOOPS:
                return self.loop(kind, parts(indices), body)
            case ast.Call(func=ast.Name(id=function), args=args) if function in FUNCTIONS:
                return ["call", function, [self.tree(arg) for arg in args]]
        raise ValueError(ast.unparse(node))

    def loop(self, kind: str, indices: list[ast.expr], body: ast.expr) -> Tree | None:
        """A sum, or the largest, over indices."""
        inner = self.tree(body)
        if inner is None:
            return None
        ranges: list[Tree] = []
        for index in indices:
            if isinstance(index, ast.Slice):
                assert isinstance(index.lower, ast.Name)
                assert isinstance(index.upper, ast.Name)
                ranges.append([index.lower.id, int(self.numbers[index.upper.id])])
            else:
                name = ast.unparse(index)
                ranges.append([name, self.size(name, inner)])
        return ["loop", kind, ranges, inner]

    def size(self, index: str, tree: Tree) -> Any:
        """How many values an index takes; for ``...`` the shape of the leading axes."""
        wanted = ["rest"] if index == "..." else ["index", index]
        for _, name, indices in (part for part in walk(tree) if part[0] == "array" and part[1] in self.shapes):
            if wanted in indices:
                shape, behind = self.shapes[name], len(indices) - 1
                return (
                    list(shape[: len(shape) - behind]) if index == "..." else shape[indices.index(wanted) - behind - 1]
                )
        raise ValueError(f"{index} indexes no array alone")

    def combine(self, operator: str, left: Tree | None, right: Tree | None) -> Tree | None:
        """An operation, done where both sides are numbers and left out where it changes nothing."""
        if left is None or right is None:
            return (left or right) if operator in "+-" else None
        zero, one = ["number", 0], ["number", 1]
        if (operator in "+-" and right == zero) or (operator in ("*", "/", "//") and right == one):
            return left
        if (operator == "+" and left == zero) or (operator == "*" and left == one):
            return right
        if left[0] == right[0] == "number" and operator in "+-*":
            a, b = left[1], right[1]
            return ["number", a + b if operator == "+" else a - b if operator == "-" else a * b]
        return ["do", operator, left, right]


def walk(tree: Tree) -> list[Tree]:
    """A tree and all trees in it."""
    found = [tree]
    for part in tree[1:]:
        if isinstance(part, list):
            inside = [part] if part and isinstance(part[0], str) and part[0] in KINDS else part
            for child in inside:
                if isinstance(child, list) and child and isinstance(child[0], str) and child[0] in KINDS:
                    found += walk(child)
    return found


KINDS = ("number", "index", "rest", "array", "do", "call", "loop")
