"""Equations as MathML, which browsers draw and screen readers read."""

from html import escape

from gpucnn.explain.equations import Equation, Tree

SYMBOLS = {"mean": "μ", "var": "σ²", "xhat": "x̂", "mean_dy": "mean(dy)", "mean_dy_xhat": "mean(dy·x̂)", "nll": "−log p"}
BINDING = {"==": 0, ">": 0, ">=": 0, "<": 0, "<=": 0, "+": 1, "-": 1, "*": 2, "/": 2, "//": 3, "%": 2, "**": 4}
RELATIONS = {"==": "=", ">": ">", ">=": "≥", "<": "<", "<=": "≤"}


def equation_to_mathml(equation: Equation, hidden: tuple[str, ...] = ()) -> str:
    """An equation; ``hidden`` are indices to leave out, as that of the example in a batch of one."""
    writer = Writer(hidden)
    left = writer.array(equation.name, [["rest"] if i == "..." else ["index", i] for i in equation.indices])
    body = f"{left}<mo>=</mo>{writer.write(equation.tree, 0)}"
    return f"<math displaystyle='true'><mrow>{body}</mrow></math>"


class Writer:
    """Trees -> MathML."""

    def __init__(self, hidden: tuple[str, ...]) -> None:
        self.hidden = hidden

    def write(self, tree: Tree, least: int) -> str:
        """A tree, in brackets where it binds less than ``least``."""
        match tree:
            case ["number", value]:
                digits, _, power = f"{value:.4g}".replace("-", "−").partition("e")
                if not power:
                    return f"<mn>{digits}</mn>"
                ten = f"<msup><mn>10</mn><mn>{power[:1].strip('+')}{power[1:].lstrip('0')}</mn></msup>"
                return ten if digits == "1" else f"<mrow><mn>{digits}</mn><mo>·</mo>{ten}</mrow>"
            case ["index", name]:
                return f"<mi>{escape(name)}</mi>"
            case ["rest"]:
                return "<mo>·</mo>"
            case ["array", name, indices]:
                return self.array(name, indices)
            case ["call", "where", arguments]:
                return self.cases(*arguments)
            case ["call", function, arguments]:
                inside = "<mo>,</mo>".join(self.write(argument, 0) for argument in arguments)
                if function == "sqrt":
                    return f"<msqrt>{inside}</msqrt>"
                return f"<mrow><mi>{function}</mi><mo>(</mo>{inside}<mo>)</mo></mrow>"
            case ["loop", kind, ranges, body]:
                return self.loop(kind, [name for name, _ in ranges if name not in self.hidden], body)
            case ["do", operator, left, right]:
                text = self.operation(operator, left, right)
                return f"<mrow><mo>(</mo>{text}<mo>)</mo></mrow>" if self.loose(tree) < least else text
        raise ValueError(tree)

    def cases(self, condition: Tree, yes: Tree, no: Tree) -> str:
        """A brace with a row per case; of those within the last one, too."""
        rows = []
        while True:
            rows.append((self.write(yes, 0), f"<mtext>if\u00a0</mtext>{self.relation(condition)}"))
            if no[:2] != ["call", "where"]:
                break
            condition, yes, no = no[2]
        rows.append((self.write(no, 0), "<mtext>else</mtext>"))
        table = "".join(f"<mtr><mtd>{value}</mtd><mtd><mrow>{when}</mrow></mtd></mtr>" for value, when in rows)
        return f"<mrow><mo>{{</mo><mtable>{table}</mtable></mrow>"

    def relation(self, tree: Tree) -> str:
        """A condition, without the brackets that make it a number."""
        match tree:
            case ["do", operator, left, right] if operator in RELATIONS:
                return f"{self.write(left, 1)}<mo>{escape(RELATIONS[operator])}</mo>{self.write(right, 1)}"
        return self.write(tree, 0)

    def loose(self, tree: Tree) -> int:
        """How strongly the operator binds; relations come with brackets of their own, fractions need none."""
        return 9 if tree[1] in RELATIONS or tree[1] == "/" else BINDING[tree[1]]

    def operation(self, operator: str, left: Tree, right: Tree) -> str:
        """Two trees and what is done with them."""
        binding = BINDING[operator]
        if operator == "/":
            return f"<mfrac><mrow>{self.write(left, 0)}</mrow><mrow>{self.write(right, 0)}</mrow></mfrac>"
        if operator == "**":
            return f"<msup><mrow>{self.write(left, 5)}</mrow>{self.write(right, 5)}</msup>"
        if operator == "//":
            return f"<mrow><mo>⌊</mo>{self.write(left, 2)}<mo>/</mo>{self.write(right, 3)}<mo>⌋</mo></mrow>"
        if operator in RELATIONS:  # 1 where it holds, else 0
            return f"<mrow><mo>[</mo>{self.relation(['do', operator, left, right])}<mo>]</mo></mrow>"
        if operator == "-" and left == ["number", 0]:
            return f"<mrow><mo>−</mo>{self.write(right, 2)}</mrow>"
        sign = {"*": "·", "-": "−", "%": " mod "}.get(operator, operator)
        return (
            f"<mrow>{self.write(left, binding)}<mo>{sign}</mo>{self.write(right, binding + (operator != '+'))}</mrow>"
        )

    def loop(self, kind: str, names: list[str], body: Tree) -> str:
        """A sum, a mean or the largest, over indices."""
        inside = self.write(body, 2)
        under = "<mo>,</mo>".join(f"<mi>{'·' if name == '...' else escape(name)}</mi>" for name in names)
        if not under:  # one example: the sum has one term
            return inside
        sign = "<mo>∑</mo>" if kind == "sum" else f"<mi>{kind}</mi>"
        return f"<mrow><munder>{sign}<mrow>{under}</mrow></munder>{inside}</mrow>"

    def array(self, name: str, indices: list[Tree]) -> str:
        """An array with its indices below."""
        letter = self.letter(name)
        shown = [index for index in indices if not (index[0] == "index" and index[1] in self.hidden)]
        if shown in ([], [["rest"]], [["index", "z"]]):
            return letter
        below = "<mo>,</mo>".join(self.write(index, 0) for index in shown)
        return f"<msub>{letter}<mrow>{below}</mrow></msub>"

    def letter(self, name: str) -> str:
        """The name of an array; of dx two slanted letters."""
        if len(name) == 2 and name[0] == "d":
            return f"<mrow><mi>d</mi><mi>{escape(name[1])}</mi></mrow>"
        text = f"new {name[4:]}" if name.startswith("new_") else SYMBOLS.get(name, name)
        return f"<mi>{escape(text)}</mi>"
