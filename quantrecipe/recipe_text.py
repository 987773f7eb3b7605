"""A recipe as YAML, by a writer small enough to start fast; it covers what recipes hold and no more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

WIDTH = 100
# What YAML takes for line ends, or not at all, outside an escape.
_UNPRINTABLE = re.compile("[\x7f-\xa0\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
# A word that YAML reads back as itself: no indicator, no number, no truth value.
_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./@+-]*(?: [A-Za-z0-9_./@+-]+)*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def recipe_yaml(data: Mapping[str, Any]) -> str:
    """The mapping as YAML: short mappings and lists on one line, the rest nested, in the given order."""
    return "\n".join(_mapping(data, 0)) + "\n"


def _mapping(data: Mapping[str, Any], depth: int) -> Iterator[str]:
    for key, value in data.items():
        yield from _entry(f"{'  ' * depth}{_scalar(key)}:", value, depth)


def _entry(head: str, value: Any, depth: int) -> Iterator[str]:
    flat = f"{head} {_flow(value)}"
    nested = isinstance(value, Mapping) and any(isinstance(v, Mapping | list) for v in value.values())
    if not isinstance(value, Mapping | list) or (len(flat) <= WIDTH and not nested and not _of_mappings(value)):
        yield flat
    elif isinstance(value, Mapping):
        yield head
        yield from _mapping(value, depth + 1)
    else:
        yield head
        yield from (line for item in value for line in _item(item, depth))


def _item(item: Any, depth: int) -> Iterator[str]:
    if not isinstance(item, Mapping):
        yield f"{'  ' * depth}- {_flow(item)}"
        return
    lines = list(_mapping(item, depth + 1)) or [" {}"]
    yield f"{'  ' * depth}- {lines[0].lstrip()}"
    yield from lines[1:]


def _of_mappings(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, Mapping) for item in value)


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """JSON's form is YAML's, save for plain words, which need no quotes."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    if isinstance(value, float):
        return _float(value)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def _float(value: float) -> str:
    """A float that YAML 1.1 reads as one: with a point before any exponent."""
    text = repr(value)
    if text in ("inf", "-inf", "nan"):
        return text.replace("inf", ".inf").replace("nan", ".nan")
    return text.replace("e", ".0e") if "e" in text and "." not in text else text
