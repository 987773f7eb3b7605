"""Where a recipe's gates stand in its file, so that annotations can point at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantrecipe.errors import RecipeError
from quantrecipe.safe_yaml import parse, read_text


def recipe_source(path: Path) -> dict[str, Any]:
    """``path`` as given, ``line`` of the gates, and ``gates``: the line of each key under them."""
    document = parse(read_text(path, "recipe", RecipeError), str(path), RecipeError)
    gates = document.data.get("gates") if isinstance(document.data, dict) else None
    names = gates if isinstance(gates, dict) else {}
    return {
        "path": path.as_posix(),
        "line": document.line(("gates",)),
        "gates": {str(name): document.line(("gates", str(name))) for name in names},
    }


def place(source: dict[str, Any] | None, gate: str) -> tuple[str, int]:
    """File and line of a gate; its first line where the recipe does not name it, as with integrity."""
    if source is None:
        return "recipe.yaml", 1
    return str(source["path"]), int(source["gates"].get(gate.partition(":")[0], source["line"]))
