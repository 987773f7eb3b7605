"""The front door to models: a catalogue name, a folder or config.json, or a hub id."""

from __future__ import annotations

import re
from pathlib import Path

from quantrecipe.catalog import lookup
from quantrecipe.errors import ModelError
from quantrecipe.model import ModelSpec

_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")


def resolve_model(text: str) -> ModelSpec:
    """The model that ``text`` means. Raises ModelError naming the nearest known names.

    A path that exists wins over the catalogue, and the catalogue over the hub, which is asked last.
    """
    if not text.strip() or "\0" in text:
        raise ModelError("no model named", value=text, remedy="list them: qadvise models")
    path = _existing(text)
    if path is not None:
        from quantrecipe.catalog.local import from_path

        return from_path(path)
    known = lookup.find(text)
    if known:
        return known
    if _HUB_ID.fullmatch(text.strip()) and ".." not in text:
        from quantrecipe.catalog.hub import from_hub

        return from_hub(text.strip())
    raise lookup.unknown(text)


def _existing(text: str) -> Path | None:
    """The file or folder of that name, where the text looks like a path or nothing else answers to it."""
    looks_like_path = text.startswith((".", "/", "~")) or text.endswith(".json") or "\\" in text
    if not looks_like_path and lookup.find(text):
        return None
    try:
        path = Path(text).expanduser()
        if path.exists():
            return path
    except (OSError, ValueError, RuntimeError):
        path = Path(text)
    if looks_like_path:
        raise ModelError("no such model folder or file", value=text, remedy="list known models: qadvise models")
    return None
