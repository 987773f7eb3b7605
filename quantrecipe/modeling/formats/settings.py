"""Values of a quantization_config that strangers wrote: of the type and in the range that readers need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quantrecipe.errors import ModelError
from quantrecipe.safe_json import read_json

BESIDE = ("quantize_config.json", "quant_config.json")


def quantization_config(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """From config.json, or from the file beside it that AutoGPTQ and AutoAWQ write; empty where there is none."""
    found = config.get("quantization_config")
    if found is not None and not isinstance(found, dict):
        raise ModelError("quantization_config is not an object", value=str(found)[:60])
    if found:
        return found
    for name in BESIDE:
        if (folder / name).exists():
            return read_json(folder / name)
    return {}


def integer(config: Mapping[str, Any], key: str, allowed: Iterable[int] | range, default: int | None = None) -> int:
    """A whole number among ``allowed``. Raises ModelError."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
        limit = "a whole number" if isinstance(allowed, range) else "one of " + ", ".join(map(str, allowed))
        raise ModelError(f"the quantization config says {key}", value=_short(value), limit=limit)
    return value


def flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    """True or false. Raises ModelError."""
    value = config.get(key, default)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise ModelError(f"the quantization config says {key}", value=_short(value), limit="true or false")
    return value


def word(config: Mapping[str, Any], key: str, default: str) -> str:
    """A word. Raises ModelError."""
    value = config.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise ModelError(f"the quantization config says {key}", value=_short(value), limit="a word")
    return value


def pair(config: Mapping[str, Any], key: str) -> tuple[int, int]:
    """Two positive numbers, such as a shape. Raises ModelError."""
    value = config.get(key)
    if isinstance(value, list) and len(value) == 2 and all(type(one) is int and 0 < one < 2**31 for one in value):
        return value[0], value[1]
    raise ModelError(f"the quantization config says {key}", value=_short(value), limit="two positive numbers")


def words(config: Mapping[str, Any], key: str) -> list[str]:
    """A list of words; empty where there is none. Raises ModelError."""
    value = config.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ModelError(f"the quantization config says {key}", value=_short(value), limit="a list of names")
    return value


def _short(value: Any) -> str:
    return repr(value)[:60]
