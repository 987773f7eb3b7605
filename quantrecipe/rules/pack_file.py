"""Reads a pack's YAML safely and says of each fault: file, line, what, value, what is allowed, the nearest word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from quantrecipe.errors import did_you_mean
from quantrecipe.rules.operands import RuleError
from quantrecipe.rules.pack import Pack, Part, QueryPart, RulePart
from quantrecipe.safe_yaml import Document, parse, read_text


def read_pack(path: str | Path) -> Pack:
    """The pack in that file. Raises RuleError with the first fault."""
    found = check_file(path)
    if isinstance(found, Pack):
        return found
    more = f"{len(found) - 1} more: qadvise rules check {path}" if len(found) > 1 else None
    raise RuleError(found[0], remedy=more)


def check_file(path: str | Path) -> Pack | list[str]:
    """The pack, or its faults as lines, in the order of the file."""
    try:
        document = read_document(path)
    except RuleError as error:
        return [str(error)]
    return check_document(document, str(path))


def read_document(path: str | Path) -> Document:
    """The YAML file as data with line numbers. Raises RuleError where it is unreadable or no YAML."""
    return parse(read_text(path, "rule pack", RuleError), str(path), RuleError)


def check_document(document: Document, name: str) -> Pack | list[str]:
    """The pack in a document, or its faults as lines."""
    try:
        return Pack.model_validate(document.data)
    except ValidationError as error:
        faults = [_fault(fault, document, name) for fault in error.errors(include_url=False)]
        return [text for _, text in sorted(faults, key=lambda pair: pair[0])]


def _fault(fault: Any, document: Document, name: str) -> tuple[int, str]:
    """The line of one pydantic fault, and its text."""
    line = document.line(fault["loc"])  # pydantic adds names of types at the end of a path
    where = f"{name}:{line}: {_named(fault['loc'], document.data)}"
    if fault["type"] == "extra_forbidden":
        known = _known(fault["loc"])
        error = RuleError(
            f"{where}: unknown key",
            limit=f"allowed: {', '.join(known)}",
            remedy=did_you_mean(str(fault["loc"][-1]), known),
        )
    else:
        value = fault.get("input")
        plain = isinstance(value, str | int | float) and fault["type"] != "value_error"
        message = fault["msg"].removeprefix("Value error, ")
        words = re.findall(r"'([^']*)'", message) if fault["type"] == "literal_error" else []
        shown = value if plain and len(str(value)) <= 80 else None
        error = RuleError(where, value=shown, limit=message, remedy=did_you_mean(str(value), words))
    return line, str(error)


def _named(loc: tuple[str | int, ...], data: Any) -> str:
    """The place in a person's words: the rule by its id, lines from 1."""
    parts = [str(part + 1) if isinstance(part, int) else part for part in loc if part not in _TYPE_NAMES]
    if len(loc) > 1 and loc[0] == "rules" and isinstance(loc[1], int):
        rule = data["rules"][loc[1]]
        ident = rule.get("id") if isinstance(rule, dict) else None
        head = f"rule {ident}" if isinstance(ident, str) else f"rule {loc[1] + 1}"
        return " ".join([head, *parts[2:]])
    return " ".join(parts) or "pack"


_TYPE_NAMES = {"bool", "int", "float", "str", "list[union[bool,int,float,str]]"}


def _known(loc: tuple[str | int, ...]) -> list[str]:
    model: type[Part] = QueryPart if "evidence" in loc else RulePart if loc[0] == "rules" else Pack
    return list(model.model_fields)
