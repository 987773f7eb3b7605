"""The table of facts, read off the annotations in ``facts.py``: used to check and document rules."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from quantrecipe.rules import facts
from quantrecipe.rules.facts import BudgetFacts, CandidateFacts, EngineFacts, HardwareFacts, ModelFacts

Kind = Literal["number", "text", "flag"]

GROUPS: dict[str, type] = {
    "model": ModelFacts,
    "budget": BudgetFacts,
    "candidate": CandidateFacts,
    "hardware": HardwareFacts,
    "engine": EngineFacts,
}


class Field(NamedTuple):
    """One fact: ``kind`` is its type, ``allowed`` its words where it is a choice."""

    name: str
    kind: Kind
    optional: bool
    allowed: tuple[str, ...]
    doc: str


@cache
def fields() -> dict[str, Field]:
    """Every fact by its full name, such as ``model.layers``."""
    return {field.name: field for group, cls in GROUPS.items() for field in _fields_of(group, cls)}


def _fields_of(group: str, cls: type) -> Iterator[Field]:
    hints = get_type_hints(cls, include_extras=True)
    for name, member in vars(cls).items():
        if isinstance(member, property) and member.fget:
            hints[name] = get_type_hints(member.fget, vars(facts), include_extras=True)["return"]
    for name, hint in hints.items():
        base, doc = get_args(hint)
        yield _field(f"{group}.{name}", base, doc)


def _field(name: str, base: Any, doc: str) -> Field:
    options = get_args(base) if get_origin(base) in (Union, UnionType) else (base,)
    optional = NoneType in options
    inner = next(option for option in options if option is not NoneType)
    if get_origin(inner) is Literal:
        return Field(name, "text", optional, tuple(get_args(inner)), doc)
    kinds: dict[Any, Kind] = {int: "number", float: "number", str: "text", bool: "flag"}
    return Field(name, kinds[inner], optional, (), doc)
