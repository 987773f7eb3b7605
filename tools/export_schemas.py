"""Writes the schemas of recipe, advice and results into docs/ from the code; ``--check`` only compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from quantrecipe.advisor.schema import advice_schema
from quantrecipe.recipe import Recipe
from quantrecipe.runner.results_schema import results_schema

DOCS = Path(__file__).parents[1] / "docs"


def texts() -> dict[Path, str]:
    """File -> the text it should have."""
    schemas = {"recipe": Recipe.model_json_schema(), "advice": advice_schema(), "results": results_schema()}
    return {
        DOCS / f"{name}.schema.json": json.dumps(schema, indent=2, sort_keys=True) + "\n"
        for name, schema in schemas.items()
    }


def main() -> int:
    stale = {p: t for p, t in texts().items() if not p.exists() or p.read_text(encoding="utf-8") != t}
    for path, text in stale.items():
        print(f"{path.name}: {'stale' if '--check' in sys.argv[1:] else 'written'}")
        if "--check" not in sys.argv[1:]:
            DOCS.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(bool(stale) and "--check" in sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
