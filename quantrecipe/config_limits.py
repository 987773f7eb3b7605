"""Limits on a config.json from strangers, checked before anything is built from it.

An architecture is built module by module: a layer count of two thousand million would never end. The limits lie far
above every published model (2026: under 200 layers, 1,000 experts, 10 million positions).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quantrecipe.errors import ModelError

MOST = 10**12
MOST_PARTS = 10_000
MOST_POSITIONS = 100_000_000
#: Positions of the families that keep a square mask of them.
MOST_SQUARE = 32_768
_PARTS = re.compile(r"layer|block|expert|head|group|depth|stage")
_NO_COUNT = re.compile(r"size|dim|_id$|_ids$")


def check_config(config: Mapping[str, Any]) -> None:
    """Raises ModelError where a number is larger than any model's."""
    stack: list[tuple[str, Any]] = list(config.items())
    while stack:
        key, value = stack.pop()
        if isinstance(value, dict):
            stack += value.items()
        elif isinstance(value, list):
            if len(value) > MOST_PARTS * 10:
                raise ModelError(f"config.json has a {key} too long", value=len(value), limit=f"{MOST_PARTS * 10}")
            stack += [(key, one) for one in value]
        elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > _most(key):
            raise ModelError(f"config.json has a {key} beyond any model's", value=value, limit=f"{_most(key)}")


def _most(key: str) -> int:
    if key == "n_positions":
        return MOST_SQUARE
    if "position" in key:
        return MOST_POSITIONS
    return MOST_PARTS if _PARTS.search(key) and not _NO_COUNT.search(key) else MOST
