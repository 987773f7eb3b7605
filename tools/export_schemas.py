"""The schemas of recipe, advice and results in docs/, from the code: a step of tools/generate.py."""

from __future__ import annotations

import json
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
