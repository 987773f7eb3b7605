"""Reads one line of a rule: a safe expression over the facts, as a tree of plain lists.

``ast`` only parses the text; nothing is compiled or evaluated by Python. Of the syntax tree a handful of node
types is let through (and, or, not; chained comparisons; ``in`` a list of constants; ``is None``; + - * / and
numbers; names such as ``model.layers``), everything else is refused with a reason. Sizes are limited, so that
no line is slow to read or to evaluate, and types are checked against the facts at once.

A tree is JSON: ``["field", name]``, ``["const", value]``, ``["and"|"or", tree, …]``, ``["not", tree]``,
``["cmp", tree, op, tree, op, tree, …]``, ``["in"|"not in", tree, [value, …]]``, ``["none"|"known", name]``,
``["+"|"-"|"*"|"/", tree, tree]``, ``["neg", tree]``.
"""

from __future__ import annotations

import ast
import warnings
from itertools import pairwise

from quantrecipe.rules.fields import Kind, fields
from quantrecipe.rules.operands import (
    RuleError,
    Tree,
    check_sides,
    check_word,
    constant,
    excerpt,
    fact,
    kind_of,
    list_item,
)

MAX_LENGTH = 300
MAX_DEPTH = 12
MAX_ITEMS = 50

_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=",
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_GRAMMAR = "a line may use facts, constants, and, or, not, comparisons, in [...], is None, + - * /"


def parse(text: str) -> Tree:
    """The tree of one line. Raises RuleError: what is wrong, the value, what is allowed, the nearest fact."""
    if len(text) > MAX_LENGTH:
        raise RuleError("the expression is too long", value=text[:40] + "…", limit=f"at most {MAX_LENGTH} characters")
    if not text.isprintable() or "\\" in text:
        raise RuleError("the expression has a line break, a backslash or a hidden character", value=text)
    tree, kind = _read(_syntax(text.strip()), MAX_DEPTH)
    if kind != "flag":
        raise RuleError("the expression is not a condition", value=text, limit="it must be true or false")
    return tree


def _syntax(text: str) -> ast.expr:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        detail = error.msg if isinstance(error, SyntaxError) else str(error)
        raise RuleError("not an expression", value=text, limit=detail) from error


def _read(node: ast.expr, depth: int) -> tuple[Tree, Kind]:
    """The tree of a node and the kind of its value."""
    if depth == 0:
        raise RuleError("the expression is nested too deeply", limit=f"at most {MAX_DEPTH} levels")
    match node:
        case ast.Constant(value=value):
            return ["const", constant(value)], kind_of(value)
        case ast.Attribute() | ast.Name():
            field = fact(node)
            return ["field", field.name], field.kind
        case ast.BoolOp():
            word = "and" if isinstance(node.op, ast.And) else "or"
            return [word, *(_typed(value, "flag", depth) for value in node.values)], "flag"
        case ast.UnaryOp(op=ast.Not()):
            return ["not", _typed(node.operand, "flag", depth)], "flag"
        case ast.UnaryOp(op=ast.USub()):
            return ["neg", _typed(node.operand, "number", depth)], "number"
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            sides = _typed(node.left, "number", depth), _typed(node.right, "number", depth)
            return [_ARITHMETIC[type(node.op)], *sides], "number"
        case ast.Compare():
            return _comparison(node, depth), "flag"
    raise RuleError("not allowed in an expression", value=excerpt(node), limit=_GRAMMAR)


def _typed(node: ast.expr, kind: Kind, depth: int) -> Tree:
    tree, found = _read(node, depth - 1)
    if found != kind:
        wanted = {"flag": "a condition", "number": "a number", "text": "text"}[kind]
        raise RuleError(f"{wanted} is needed, this is a {found}", value=excerpt(node))
    return tree


def _comparison(node: ast.Compare, depth: int) -> Tree:
    first = node.ops[0]
    if len(node.ops) == 1 and isinstance(first, ast.In | ast.NotIn):
        return _membership(node, "in" if isinstance(first, ast.In) else "not in", depth)
    if len(node.ops) == 1 and isinstance(first, ast.Is | ast.IsNot):
        return _is_none(node, "none" if isinstance(first, ast.Is) else "known")
    if not all(type(op) in _COMPARE for op in node.ops):
        raise RuleError("'in' and 'is' cannot be chained", value=excerpt(node))
    sides = [node.left, *node.comparators]
    read = [_read(side, depth - 1) for side in sides]
    tree: Tree = ["cmp", read[0][0]]
    for op, (left, right), nodes in zip(node.ops, pairwise(read), pairwise(sides), strict=True):
        check_sides(_COMPARE[type(op)], left, right, nodes)
        tree += [_COMPARE[type(op)], right[0]]
    return tree


def _membership(node: ast.Compare, word: str, depth: int) -> Tree:
    tree, kind = _read(node.left, depth - 1)
    items = node.comparators[0]
    if not isinstance(items, ast.List | ast.Tuple) or not 0 < len(items.elts) <= MAX_ITEMS:
        limit = f"write [a, b, …] with 1 to {MAX_ITEMS} constants"
        raise RuleError(f"{word!r} needs a list of constants", value=excerpt(items), limit=limit)
    values = [list_item(item, kind) for item in items.elts]
    if tree[0] == "field":
        for value in values:
            check_word(fields()[tree[1]], value)
    return [word, tree, values]


def _is_none(node: ast.Compare, word: str) -> Tree:
    right = node.comparators[0]
    if not (isinstance(right, ast.Constant) and right.value is None):
        raise RuleError("'is' is only for None", value=excerpt(node), limit="use == for values")
    field = fact(node.left)
    if not field.optional:
        raise RuleError("this fact is always known", value=field.name)
    return [word, field.name]
