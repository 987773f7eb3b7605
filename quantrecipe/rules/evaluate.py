"""Evaluates the trees of ``expression.py`` over facts, by our own functions, in three values.

A comparison with an unknown fact (None) is unknown, as is arithmetic that has no answer (x / 0): unknown is
neither true nor false, ``not`` keeps it, ``and`` and ``or`` decide without it where they can. A line holds
only where it is true.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from operator import attrgetter
from typing import Any

Truth = bool | None
Value = Callable[[Any], Any]

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip


def build(tree: list[Any]) -> Value:
    """A function from facts to the value of the tree: built once, called per candidate."""
    word, *rest = tree
    return _BUILDERS[word](*rest) if word in _BUILDERS else _arithmetic(_OPERATORS[word], *map(build, rest))


def _const(value: Any) -> Value:
    return lambda facts: value


def _and(*trees: list[Any]) -> Value:
    parts = [build(tree) for tree in trees]

    def holds(facts: Any) -> Truth:
        result: Truth = True
        for part in parts:
            value = part(facts)
            if value is False:
                return False
            result = result if value else None
        return result

    return holds


def _or(*trees: list[Any]) -> Value:
    parts = [build(tree) for tree in trees]

    def holds(facts: Any) -> Truth:
        result: Truth = False
        for part in parts:
            value = part(facts)
            if value:
                return True
            result = None if value is None else result
        return result

    return holds


def _not(tree: list[Any]) -> Value:
    part = build(tree)

    def holds(facts: Any) -> Truth:
        value = part(facts)
        return None if value is None else not value

    return holds


def _cmp(first: list[Any], *rest: Any) -> Value:
    left = build(first)
    steps = [(_OPERATORS[op], build(tree)) for op, tree in zip(rest[::2], rest[1::2], strict=True)]

    def holds(facts: Any) -> Truth:
        result: Truth = True
        a = left(facts)
        for compare, part in steps:
            b = part(facts)
            if a is None or b is None:
                result = None
            elif not compare(a, b):
                return False
            a = b
        return result

    return holds


def _in(tree: list[Any], items: list[Any], wanted: bool = True) -> Value:
    part, known = build(tree), frozenset(items)

    def holds(facts: Any) -> Truth:
        value = part(facts)
        return None if value is None else (value in known) is wanted

    return holds


def _not_in(tree: list[Any], items: list[Any]) -> Value:
    return _in(tree, items, wanted=False)


def _none(name: str) -> Value:
    read = attrgetter(name)
    return lambda facts: read(facts) is None


def _known(name: str) -> Value:
    read = attrgetter(name)
    return lambda facts: read(facts) is not None


def _neg(tree: list[Any]) -> Value:
    part = build(tree)

    def value(facts: Any) -> Any:
        number = part(facts)
        return None if number is None else -number

    return value


def _arithmetic(function: Callable[[Any, Any], Any], left: Value, right: Value) -> Value:
    def value(facts: Any) -> float | None:
        a, b = left(facts), right(facts)
        if a is None or b is None:
            return None
        try:
            return float(function(float(a), float(b)))
        except (ZeroDivisionError, OverflowError):
            return None

    return value


_BUILDERS: dict[str, Callable[..., Value]] = {
    "field": attrgetter,
    "const": _const,
    "and": _and,
    "or": _or,
    "not": _not,
    "cmp": _cmp,
    "in": _in,
    "not in": _not_in,
    "none": _none,
    "known": _known,
    "neg": _neg,
}
