"""Small faults in the package, as ``mutate.py`` puts them in: which there are, and how they are drawn."""

import ast
import copy
import hashlib
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

EQUIVALENT = Path(__file__).with_name("mutants.toml")

SWAPS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr, ast.MatMult: ast.Mult,
}  # fmt: skip
TEXT = {"Raise", "JoinedStr", "Import", "ImportFrom", "Assert"}  # messages, and what fails at once
UNCALLED = {"tell", "print", "isinstance", "cast", "TypeVar", "super", "streams"}  # messages, types, speed
COMMUTATIVE = {"maximum", "minimum", "max", "min"}
SPEED = {"work", "copy"}  # keyword arguments that choose between ways to the same result

Point = tuple[ast.AST, str]


@dataclass(frozen=True)
class Mutant:
    """A change of one place in one file: bytes ``start`` to ``end`` become ``new``."""

    file: str
    line: int
    function: str
    code: str  # the line as it was
    change: str  # old -> new
    start: int
    end: int
    new: str

    def rank(self, seed: int, *, whole: bool) -> bytes:
        """Where a draw puts it: by its text and not by its place, so that edits elsewhere do not change the draw."""
        words = (str(seed), self.file, self.function, self.code, self.change if whole else "")
        return hashlib.sha256("\0".join(words).encode()).digest()

    def key(self) -> str:
        """Its name in the results."""
        return hashlib.sha256(repr((self.file, self.function, self.code, self.change)).encode()).hexdigest()[:16]


def changed(node: ast.AST, **fields: object) -> str:
    """The source of a node with some of its fields replaced, in brackets where it is an expression."""
    other = copy.copy(node)
    vars(other).update(fields)
    text = ast.unparse(other)
    return f"({text})" if isinstance(node, ast.expr) else text


def without(items: list[Any], index: int) -> list[Any]:
    return items[:index] + items[index + 1 :]


def expression_points(node: ast.AST) -> Iterator[Point]:
    """(node, the text that takes its place) for each change of an expression."""
    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield node, changed(node, ops=[*ops[:i], SWAPS[type(op)](), *ops[i + 1 :]])
        case ast.BoolOp(op=op, values=values):
            yield node, changed(node, op=SWAPS[type(op)]())
            for i in range(len(values) if len(values) > 2 else 0):
                yield node, changed(node, values=without(values, i))
            if len(values) == 2:
                yield from ((node, f"({ast.unparse(value)})") for value in values)
        case ast.BinOp(op=op, left=left, right=right):
            texts = (ast.JoinedStr, ast.Constant)
            if not any(
                isinstance(side, texts) and isinstance(getattr(side, "value", ""), str) for side in (left, right)
            ):
                yield node, changed(node, op=SWAPS[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert(), operand=operand):
            yield node, f"({ast.unparse(operand)})"
        case ast.Constant(value=bool()):
            yield node, str(not node.value)
        case ast.Constant(value=int()):
            yield node, str(node.value + 1)
            yield node, f"({node.value - 1})"
        case ast.Constant(value=float()):
            yield node, repr(2 * node.value or 1.0)
        case ast.IfExp(test=test):
            yield test, "True"
            yield test, "False"
        case ast.Call(func=func, args=args, keywords=keywords):
            name = getattr(func, "attr", getattr(func, "id", ""))
            for i in range(len(args) - 1):
                pair = args[i : i + 2]
                starred = any(isinstance(a, ast.Starred) for a in pair)
                if not starred and name not in COMMUTATIVE and ast.dump(pair[0]) != ast.dump(pair[1]):
                    yield node, changed(node, args=[*args[:i], *pair[::-1], *args[i + 2 :]])
            for i, keyword in enumerate(keywords):
                if keyword.arg and keyword.arg not in SPEED:
                    yield node, changed(node, keywords=without(keywords, i))
        case ast.Slice(lower=lower, upper=upper):
            for bound, sign in ((lower, "+"), (upper, "-")):
                if bound is not None and not isinstance(bound, ast.Constant):
                    yield bound, f"({ast.unparse(bound)}) {sign} 1"
        case ast.comprehension(ifs=ifs):
            yield from ((test, "True") for test in ifs)


def is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def statement_points(node: ast.AST) -> Iterator[Point]:
    """The same for statements."""
    match node:
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue() | ast.Break() | ast.Return(value=None):
            yield node, "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield node, "pass"
        case ast.AugAssign(op=op):
            yield node, "pass"
            yield node, changed(node, op=SWAPS[type(op)]())
        case ast.Return(value=ast.expr()) if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield node, "return None"
        case ast.If(test=test):
            yield test, "True"
            yield test, "False"
        case ast.While(test=test):
            yield test, "False"


def points(node: ast.AST, function: str = "") -> Iterator[tuple[ast.AST, str, str]]:
    """All changes below a node, each with the function that it is in."""
    name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    if name in UNCALLED or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = node.value.func
        if isinstance(called, ast.Name) and called.id in UNCALLED:
            return
    yield from ((old, new, function) for old, new in (*expression_points(node), *statement_points(node)))
    if type(node).__name__ in TEXT or is_type(node) or (isinstance(node, ast.keyword) and node.arg in SPEED):
        return
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}".strip(".")
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns", "decorator_list", "bases"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from points(child, function)


def is_type(node: ast.AST) -> bool:
    """Whether a statement names types, public names or a text: nothing that runs."""
    names = [getattr(target, "id", "") for target in getattr(node, "targets", [])]
    return isinstance(node, ast.Assign) and ("__all__" in names or any(n in ("Call", "Op", "Kernel") for n in names))


def mutants_of(root: Path, file: str) -> Iterator[Mutant]:
    """All mutants of a file."""
    source = (root / file).read_bytes()
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    for node, new, function in points(ast.parse(source)):
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        old = " ".join(source[start:end].decode().split())
        if old != new and f"({old})" != new:
            code = lines[node.lineno - 1].decode().strip()
            yield Mutant(file, node.lineno, function, code, f"{old} -> {new}", start, end, new)


@cache
def rules() -> list[dict[str, str]]:
    return tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))["equivalent"]


def is_equivalent(mutant: Mutant, exceptions: list[dict[str, str]]) -> bool:
    """Whether one of the exceptions says so: all that it names must match, ``change`` and ``function`` as a whole."""
    for rule in exceptions:
        if (
            mutant.file.startswith(rule["file"])
            and rule.get("function", mutant.function) == mutant.function
            and rule.get("code", "") in mutant.code
            and rule.get("change", mutant.change) == mutant.change
        ):
            return True
    return False


def all_mutants(root: Path, places: Collection[str]) -> list[Mutant]:
    """All mutants of the files below some places."""
    files = [str(path.relative_to(root)) for path in sorted((root / "gpucnn").rglob("*.py"))]
    return [m for file in files if any(file.startswith(place) for place in places) for m in mutants_of(root, file)]


def draw(root: Path, places: Collection[str], seed: int) -> list[Mutant]:
    """One mutant for each line below some places that has any, in random order."""
    by_line: dict[tuple[str, int], list[Mutant]] = {}
    for mutant in all_mutants(root, places):
        if not is_equivalent(mutant, rules()):
            by_line.setdefault((mutant.file, mutant.line), []).append(mutant)
    drawn = [min(found, key=lambda m: m.rank(seed, whole=True)) for found in by_line.values()]
    return sorted(drawn, key=lambda m: (m.rank(seed, whole=False), m.line))
