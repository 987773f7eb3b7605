"""JSON that strangers wrote: bounded in size, depth and digits, no key twice, no NaN; one line where it is not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from quantrecipe.errors import ModelError, QuantRecipeError

MAX_BYTES = 100_000_000
MAX_DEPTH = 60
MAX_DIGITS = 20
#: Strings whole (possessive, so linear in any text), and brackets outside them.
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class _Refused(ValueError):
    """What the parser's hooks raise."""


def read_json(path: Path, error: type[QuantRecipeError] = ModelError, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The object in a regular file of at most ``max_bytes``. Raises ``error``."""
    try:
        if not path.exists():
            raise error("file missing from the model folder", value=str(path))
        if not path.is_file():
            raise error("not a regular file", value=str(path))
        if path.stat().st_size > max_bytes:
            raise error("file is too large", value=str(path), limit=f"at most {max_bytes} bytes")
        data = path.read_bytes()
    except OSError as fault:
        raise error("file cannot be read", value=str(path), limit=fault.strerror) from fault
    found = parse_json(data, str(path), error)
    if not isinstance(found, dict):
        raise error("file is not a JSON object", value=str(path))
    return found


def parse_json(data: bytes, name: str, error: type[QuantRecipeError] = ModelError) -> Any:
    """Plain data of a UTF-8 JSON text; ``name`` stands in errors for the file. Raises ``error``."""
    try:
        text = data.decode("utf-8")
        _check_depth(text)
        found = json.loads(text, object_pairs_hook=_unique, parse_int=_bounded, parse_constant=_constant)
        if _SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode("utf-8")  # half a character can be neither shown nor a name
    except UnicodeError as fault:
        raise error("file cannot be read", value=name, limit="it is not UTF-8 text") from fault
    except (ValueError, RecursionError) as fault:
        limit = f"nested deeper than {MAX_DEPTH} levels" if isinstance(fault, RecursionError) else str(fault)[:200]
        raise error("file cannot be read", value=name, limit=limit) from fault
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"key {twice[:80]!r} stands twice")
    return found


def _bounded(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _Refused(f"a number of {len(digits)} digits; at most {MAX_DIGITS}")
    return int(digits)


def _constant(word: str) -> float:
    if word == "NaN":
        raise _Refused("NaN is no JSON")
    return float(word.replace("Infinity", "inf"))  # some configs (Mamba 2) hold Infinity


def _check_depth(text: str) -> None:
    """Before anything is built: five megabytes of nested lists took seconds to parse."""
    depth = 0
    for token in _TOKENS.finditer(text):
        first = token[0][0]
        depth += (first in "[{") - (first in "]}")
        if depth > MAX_DEPTH:
            raise _Refused(f"nested deeper than {MAX_DEPTH} levels")
