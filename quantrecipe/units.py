"""Sizes as people write them: ``80GB`` is 80e9 bytes, ``80GiB`` is 80 * 2**30."""

from __future__ import annotations

import re

from quantrecipe.errors import QuantRecipeError

_FACTORS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_BINARY = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
LIMIT = "a number with B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024), such as 80GB"


def parse_bytes(text: str | int) -> int:
    """Bytes of a size such as ``80GB``, ``7.5 GiB`` or ``123456`` (bytes).

    Raises QuantRecipeError where the text is no size or is not positive.
    """
    if isinstance(text, bool):
        raise QuantRecipeError("not a size", value=text, limit=f"write {LIMIT}")
    match = _SIZE.fullmatch(str(text).strip())
    if not match:
        raise QuantRecipeError("not a size", value=text, limit=f"write {LIMIT}")
    number, prefix, binary = match.groups()
    factors = _BINARY if binary else _FACTORS
    size = int(float(number) * factors[prefix.upper()])
    if size <= 0:
        raise QuantRecipeError("not a size", value=text, limit="it must be more than zero")
    return size


def format_bytes(size: float) -> str:
    """A size in decimal units, three or four digits: ``75.1 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 999.5:
            return f"{size:.0f} B" if unit == "B" else f"{size:.{1 if size >= 10 else 2}f} {unit}"
        size /= 1000
    return f"{size:.2f} TB" if size < 10 else f"{size:.1f} TB"


def format_both(size: float) -> str:
    """A size in decimal and binary units: ``75.1 GB (69.9 GiB)``."""
    exponent, unit = next(
        (e, u) for e, u in ((30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")) if size >= 2**e or e == 0
    )
    return f"{format_bytes(size)} ({size / 2**exponent:.{1 if exponent else 0}f} {unit})"


def format_seconds(seconds: float) -> str:
    """A time in the unit that suits it: ``12 s``, ``34 min``, ``5.6 h``."""
    if seconds < 90:
        return f"{seconds:.{1 if seconds < 10 else 0}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
