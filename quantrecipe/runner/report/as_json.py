"""results.json as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def render(results: Mapping[str, Any]) -> str:
    """Sorted keys, two spaces; no NaN, which is no JSON."""
    return json.dumps(results, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
