"""The user's cache folder: ``QUANTRECIPE_CACHE``, or ``quantrecipe`` in XDG's; ``off`` says that nothing is kept."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = "QUANTRECIPE_CACHE"


def cache_folder() -> Path | None:
    """Where to keep what can be made again; None where the user wants nothing kept. It may not exist yet."""
    named = os.environ.get(FOLDER)
    if named == "off":
        return None
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "quantrecipe"
