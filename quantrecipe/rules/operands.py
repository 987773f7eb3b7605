"""The parts of an expression: facts, constants, and what may be compared with what."""

from __future__ import annotations

import ast
import math
from typing import Any

from quantrecipe.errors import QuantRecipeError, did_you_mean, nearest
from quantrecipe.rules.fields import Field, Kind, fields

Tree = list[Any]

MAX_NUMBER = 10**18


class RuleError(QuantRecipeError):
    """A rule, a pack or an expression that makes no sense."""


def fact(node: ast.expr) -> Field:
    """The fact that ``group.name`` names. Raises RuleError with the nearest."""
    if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)):
        raise RuleError("not a fact", value=excerpt(node), limit="facts are written group.name, such as model.layers")
    name = f"{node.value.id}.{node.attr}"
    if name not in fields():
        near = nearest(name, fields(), 1)
        raise RuleError(
            "unknown fact", value=name, remedy=f"did you mean {near[0]!r}?" if near else "see docs/rules/facts.md"
        )
    return fields()[name]


def constant(value: object) -> Any:
    """A constant that a rule may have: text, true, false, a number up to MAX_NUMBER."""
    if value is None:
        raise RuleError("None is only for 'is None'", limit="write: hardware.architecture is None")
    if isinstance(value, bool | str):
        return value
    if isinstance(value, int | float) and math.isfinite(value) and abs(value) <= MAX_NUMBER:
        return value
    raise RuleError("not a constant of a rule", value=repr(value)[:40], limit="text, true, false, or numbers to 1e18")


def kind_of(value: object) -> Kind:
    """The kind of a constant."""
    return "flag" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def excerpt(node: ast.expr) -> str:
    """The node as text, for an error; short."""
    try:
        text = ast.unparse(node)
    except (RecursionError, ValueError):
        text = type(node).__name__
    return text if len(text) <= 60 else text[:59] + "…"


def list_item(node: ast.expr, kind: Kind) -> Any:
    """A constant of a list that is compared with values of that kind."""
    if not isinstance(node, ast.Constant):
        raise RuleError("a list may hold only constants", value=excerpt(node))
    value = constant(node.value)
    if kind_of(value) != kind:
        raise RuleError(f"the list is compared with a {kind}, this is a {kind_of(value)}", value=value)
    return value


def check_sides(op: str, left: tuple[Tree, Kind], right: tuple[Tree, Kind], nodes: tuple[ast.expr, ast.expr]) -> None:
    """Both sides must be of one kind; order is for numbers; words must be among a fact's choices."""
    if left[1] != right[1]:
        what = f"cannot compare a {left[1]} with a {right[1]}"
        raise RuleError(what, value=f"{excerpt(nodes[0])} {op} {excerpt(nodes[1])}")
    if left[1] != "number" and op not in ("==", "!="):
        raise RuleError(f"a {left[1]} has no order", value=f"{excerpt(nodes[0])} {op} {excerpt(nodes[1])}")
    for field, other in ((left[0], right[0]), (right[0], left[0])):
        if field[0] == "field" and other[0] == "const":
            check_word(fields()[field[1]], other[1])


def check_word(field: Field, value: Any) -> None:
    """A fact that is a choice can only be compared with its own words."""
    if field.allowed and value not in field.allowed:
        raise RuleError(
            f"{field.name} is never this",
            value=value,
            limit=f"one of {', '.join(field.allowed)}",
            remedy=did_you_mean(str(value), field.allowed),
        )
