"""Success as a formula over named quantities: `hypot(x - goal_x, y - goal_y) < 0.1`.

A formula is parsed with `ast`, and every node that is not listed here is refused; nothing is
evaluated by Python itself. It may hold

    numbers, True, False, pi, tau
    x, arm.joint_0, state("any name")      a quantity at this tick
    goal_x, goal_arm.joint_0, goal("x")    the same quantity at the goal
    info.hit                               an entry of the environment's info at this tick
    + - * / % **    < <= > >= == !=    and or not    ( )
    abs min max hypot sqrt exp log sin cos tan atan2 radians degrees
    angle(a)                               a in radians, the short way round: -pi to pi

Every part is computed at every tick, without short cuts: where one is not a finite number, there is
no success, whatever the other parts say.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from jetsight.errors import UsageError, did_you_mean, first_line

EXAMPLE = "hypot(x - goal_x, y - goal_y) < 0.1"
GOAL, INFO = "goal_", "info."
_LONGEST = 2000  # characters
_DEEPEST = 60  # parts inside parts; formulas of people have less than ten

Values = Mapping[tuple[str, str], float | bool]  # by source and name, see `Quantity`
Part = Callable[[Values], Any]
Kind = Literal["number", "truth", "any"]  # an entry of info may be either

_FUNCTIONS: dict[str, tuple[Callable[..., float], int, int]] = {
    "abs": (abs, 1, 1),
    "min": (min, 2, 99),
    "max": (max, 2, 99),
    "hypot": (math.hypot, 1, 99),
    "sqrt": (math.sqrt, 1, 1),
    "exp": (math.exp, 1, 1),
    "log": (math.log, 1, 1),
    "sin": (math.sin, 1, 1),
    "cos": (math.cos, 1, 1),
    "tan": (math.tan, 1, 1),
    "atan2": (math.atan2, 2, 2),
    "radians": (math.radians, 1, 1),
    "degrees": (math.degrees, 1, 1),
    "angle": (lambda a: math.remainder(a, math.tau), 1, 1),
}
_NAMED = ("state", "goal")  # functions of one name in quotes
_NUMBERS = {"pi": math.pi, "tau": math.tau}
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


class _NotComputable(Exception):
    """A part of a formula is no finite number at this tick."""


@dataclass(frozen=True)
class Quantity:
    """A quantity that a formula reads.

    Args:
        source: `"state"` for this tick, `"goal"`, `"info"`; `"open"` for a bare name, which may
            mean one of the first two until the names of the state are known.
        name: in that source; with `goal_` in front while it is open.
        wrapped: it stands inside `angle`, so differences are taken the short way round.
    """

    source: Literal["state", "goal", "info", "open"]
    name: str
    wrapped: bool = False


@dataclass(frozen=True)
class Formula:
    """A parsed formula; make one with `parse`.

    Args:
        text: as written.
        quantities: that it reads, each once, in the order of their first use.
        compute: its parts as functions.
    """

    text: str
    quantities: tuple[Quantity, ...]
    compute: Part

    @classmethod
    def parse(cls, text: str) -> Formula:
        """Parse `text`.

        Raises:
            UsageError: it is no formula, holds something that is not listed, or is a number.

        Example:
            >>> Formula.parse("abs(angle(heading - goal_heading)) < 0.2").quantities[0].name
            'heading'
        """
        text = text.strip()
        if len(text) > _LONGEST:
            raise UsageError(f"--success has {len(text)} characters, expected {_LONGEST} at most")
        parser = _Parser(text)
        kind, compute = parser.visit(_tree(text), False, 0)
        if kind == "number":
            parser.refuse(f"is a number, not a condition; compare it, for example {EXAMPLE!r}")
        if not parser.found:
            parser.refuse(
                f"reads no quantity, so it never changes; expected for example {EXAMPLE!r}"
            )
        return cls(text, tuple(parser.found), compute)

    @property
    def info_names(self) -> tuple[str, ...]:
        """Entries of info that it reads, like `info.hit`, each once."""
        names = [each.name for each in self.quantities if each.source == "info"]
        return tuple(dict.fromkeys(names))

    def bind(self, known: Sequence[str], where: str) -> BoundFormula:
        """Find its quantities among `known` names, which `where` has.

        Raises:
            UsageError: a name is unknown; the nearest one is suggested. Or it can mean two things.
        """
        places = {each: _resolved(each, known, where) for each in self.quantities}
        return BoundFormula(self, places)


@dataclass(frozen=True)
class BoundFormula:
    """A formula whose names are known; `places` leads from its quantities to their sources."""

    formula: Formula
    places: Mapping[Quantity, Quantity]

    @property
    def compared(self) -> tuple[tuple[str, bool], ...]:
        """Names that it reads both now and at the goal, and whether as angles."""
        found = self.places.values()
        at_goal = {each.name for each in found if each.source == "goal"}
        now = dict.fromkeys(each.name for each in found if each.source == "state")
        wrapped = {each.name for each in found if each.wrapped}
        return tuple((name, name in wrapped) for name in now if name in at_goal)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the state, now or at the goal, that it reads, each once."""
        found = [each.name for each in self.places.values() if each.source != "info"]
        return tuple(dict.fromkeys(found))

    def __call__(
        self, now: Mapping[str, float], goal: Mapping[str, float], info: Mapping[str, Any]
    ) -> bool | None:
        """Compute it at one tick; None where a part of it is no finite number.

        Args:
            now: quantities at this tick.
            goal: quantities at the goal.
            info: entries of info, by their names with `info.` in front.
        """
        sources: dict[str, Mapping[str, Any]] = {"state": now, "goal": goal, "info": info}
        try:
            values: dict[tuple[str, str], Any] = {
                (written.source, written.name): _finite(sources[place.source].get(place.name))
                for written, place in self.places.items()
            }
            return bool(self.formula.compute(values))
        except (_NotComputable, ArithmeticError, ValueError):
            return None


def _tree(text: str) -> ast.AST:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError as problem:
        reason = problem.msg
    except (RecursionError, MemoryError):
        reason = "it is nested too deeply"
    except ValueError as problem:  # a null byte, half a surrogate pair
        reason = first_line(problem)
    raise UsageError(
        f"--success {text[:200]!r} cannot be read ({reason}); expected a formula such as "
        f"{EXAMPLE!r}, or MODULE:FUNCTION"
    )


def _resolved(each: Quantity, known: Sequence[str], where: str) -> Quantity:
    if each.source == "info":
        return each
    base = each.name.removeprefix(GOAL)
    is_goal = each.source == "open" and each.name.startswith(GOAL) and base in known
    if is_goal and each.name in known:
        raise UsageError(
            f"--success: {each.name!r} is a quantity of {where} and also {base!r} at the goal; "
            f'write state("{each.name}") or goal("{base}")'
        )
    if is_goal:
        return Quantity("goal", base, each.wrapped)
    if each.name not in known:
        of_goal = each.source == "open" and each.name.startswith(GOAL)
        names = [GOAL + name for name in known] if of_goal else known
        hint = did_you_mean(each.name, names, "it has")
        raise UsageError(f"--success: {where} has no quantity {each.name!r}; {hint}")
    return Quantity("goal" if each.source == "goal" else "state", each.name, each.wrapped)


def _finite(value: Any) -> Any:
    """Return `value`, a truth value or a finite number; NumPy's become Python's."""
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, bool):
        return number
    if not isinstance(number, (int, float)) or not math.isfinite(number):
        raise _NotComputable
    return float(number)


class _Parser:
    """Turns nodes into functions of the quantities, and refuses all others.

    Args:
        text: of the formula, for messages.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self.found: dict[Quantity, None] = {}

    def refuse(self, why: str) -> NoReturn:
        """Raise `UsageError` about the formula."""
        raise UsageError(f"--success {self._text[:200]!r} {why}")

    def visit(self, node: ast.AST, wrapped: bool, depth: int) -> tuple[Kind, Part]:
        """Return kind and function of `node`; `wrapped` inside `angle`."""
        if depth > _DEEPEST:
            self.refuse("is nested too deeply; write it flatter")
        visit = getattr(self, f"_visit_{type(node).__name__}", None)
        if visit is None:
            self.refuse(
                f"holds {self._source(node)!r}, which no formula may; it may hold numbers, "
                "names, + - * / % **, comparisons, and, or, not, and " + ", ".join(_FUNCTIONS)
            )
        found: tuple[Kind, Part] = visit(node, wrapped, depth + 1)
        return found

    def _source(self, node: ast.AST) -> str:
        # Cut out of the text: to write a node anew recurses, and it may be nested deeply.
        return (ast.get_source_segment(self._text, node) or "")[:60]

    def _number(self, node: ast.AST, wrapped: bool, depth: int) -> Part:
        kind, compute = self.visit(node, wrapped, depth)
        if kind == "truth":
            self.refuse(f"uses {self._source(node)!r} as a number, but it is true or false")
        return compute

    def _truth(self, node: ast.AST, wrapped: bool, depth: int) -> Part:
        kind, compute = self.visit(node, wrapped, depth)
        if kind == "number":
            self.refuse(f"uses the number {self._source(node)!r} as a condition; compare it")
        return compute

    def _visit_Constant(self, node: ast.Constant, wrapped: bool, depth: int) -> tuple[Kind, Part]:
        value = node.value
        if isinstance(value, bool):
            return "truth", lambda values: value
        if not isinstance(value, (int, float)) or not abs(value) < 1e300:
            self.refuse(f"holds {self._source(node)!r}, expected a finite number")
        # As a float: powers of whole numbers can be longer than memory.
        number = float(value)
        return "number", lambda values: number

    def _visit_Name(self, node: ast.Name, wrapped: bool, depth: int) -> tuple[Kind, Part]:
        if node.id in _NUMBERS:
            number = _NUMBERS[node.id]
            return "number", lambda values: number
        return self._quantity("open", node.id, wrapped)

    def _visit_Attribute(self, node: ast.Attribute, wrapped: bool, depth: int) -> tuple[Kind, Part]:
        words = [node.attr]
        inner = node.value
        while isinstance(inner, ast.Attribute):
            words, inner = [inner.attr, *words], inner.value
        if not isinstance(inner, ast.Name):
            self.refuse(f"holds {self._source(node)!r}, expected a name such as info.hit")
        name = ".".join([inner.id, *words])
        return self._quantity("info" if name.startswith(INFO) else "open", name, wrapped)

    def _quantity(self, source: Any, name: str, wrapped: bool) -> tuple[Kind, Part]:
        self.found[Quantity(source, name, wrapped)] = None
        key = (source, name)
        return "any" if source == "info" else "number", lambda values: values[key]

    def _visit_UnaryOp(self, node: ast.UnaryOp, wrapped: bool, depth: int) -> tuple[Kind, Part]:
        if isinstance(node.op, ast.Not):
            inner = self._truth(node.operand, wrapped, depth)
            return "truth", lambda values: not inner(values)
        operand, apply = self._number(node.operand, wrapped, depth), self._operator(node.op)
        return "number", lambda values: apply(operand(values))

    def _visit_BinOp(self, node: ast.BinOp, wrapped: bool, depth: int) -> tuple[Kind, Part]:
        left, right = (self._number(each, wrapped, depth) for each in (node.left, node.right))
        apply = self._operator(node.op)
        return "number", lambda values: _finite(apply(left(values), right(values)))

    def _visit_BoolOp(self, node: ast.BoolOp, wrapped: bool, depth: int) -> tuple[Kind, Part]:
        parts = [self._truth(each, wrapped, depth) for each in node.values]
        combine = all if isinstance(node.op, ast.And) else any
        # A list, so that every part is computed.
        return "truth", lambda values: combine([part(values) for part in parts])

    def _visit_Compare(self, node: ast.Compare, wrapped: bool, depth: int) -> tuple[Kind, Part]:
        parts = [self._number(each, wrapped, depth) for each in (node.left, *node.comparators)]
        tests = [self._operator(each) for each in node.ops]

        def compute(values: Values) -> bool:
            found = [part(values) for part in parts]
            return all(test(a, b) for test, a, b in zip(tests, found[:-1], found[1:], strict=True))

        return "truth", compute

    def _visit_Call(self, node: ast.Call, wrapped: bool, depth: int) -> tuple[Kind, Part]:
        name = node.func.id if isinstance(node.func, ast.Name) else self._source(node.func)
        if name not in _FUNCTIONS and name not in _NAMED:
            self.refuse(f"calls {name!r}; {did_you_mean(name, [*_FUNCTIONS, *_NAMED], 'it has')}")
        if node.keywords or any(isinstance(each, ast.Starred) for each in node.args):
            self.refuse(f"gives {name} more than plain arguments")
        if name in _NAMED:
            return self._named(name, node, wrapped)
        function, least, most = _FUNCTIONS[name]
        if not least <= len(node.args) <= most:
            wanted = f"{least}" if least == most else f"{least} or more"
            self.refuse(f"gives {name} {len(node.args)} arguments, expected {wanted}")
        inside = wrapped or name == "angle"
        parts = [self._number(each, inside, depth) for each in node.args]
        return "number", lambda values: _finite(function(*(part(values) for part in parts)))

    def _named(self, source: str, node: ast.Call, wrapped: bool) -> tuple[Kind, Part]:
        (argument,) = node.args if len(node.args) == 1 else (None,)
        if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
            self.refuse(f'calls {source} without a name, expected for example {source}("x")')
        return self._quantity(source, argument.value, wrapped)

    def _operator(self, node: ast.AST) -> Callable[..., Any]:
        found = _OPERATORS.get(type(node))
        if found is None:
            self.refuse(
                f"uses the operator {type(node).__name__}, expected + - * / % ** < <= > >= == !="
            )
        return found
