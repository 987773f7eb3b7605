"""SARIF 2.1.0: a result a gate that failed or could not be judged, at its line of the recipe, layers named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from quantrecipe.runner.recipe_source import place
from quantrecipe.runner.report.rows import GateLine, gate_rows

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
LEVELS = {"fail": "error", "unsure": "warning", "pass": "none"}
KINDS = {"fail": "fail", "unsure": "fail", "pass": "pass"}  # a level needs kind fail (SARIF 2.1.0, 3.27.10)


def render(results: Mapping[str, Any]) -> str:
    """One run; gates that passed are results of kind ``pass``."""
    rows = gate_rows(results)
    driver = {
        "name": "quantrecipe",
        "version": results["quantrecipe"],
        "rules": [{"id": row.name, "shortDescription": {"text": f"gate {row.name} of the recipe"}} for row in rows],
    }
    run = {
        "tool": {"driver": driver},
        "results": [_result(row, number, results) for number, row in enumerate(rows)],
        "columnKind": "unicodeCodePoints",
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _result(row: GateLine, number: int, results: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "ruleId": row.name,
        "ruleIndex": number,
        "kind": KINDS[row.outcome],
        "level": LEVELS[row.outcome],
        "message": {"text": _message(row, results)},
        "locations": [_location(row, results)],
        "partialFingerprints": {"gate/v1": row.name},
    }


def _message(row: GateLine, results: Mapping[str, Any]) -> str:
    text = f"{row.name}: {row.measured}, limit {row.limit}; {row.why}."
    names = [one["name"] for one in results["suspects"]] if _is_harm(row) else list(row.faults[1:])
    return f"{text} Layers that stand out: {', '.join(names)}." if names and _is_harm(row) else text


def _is_harm(row: GateLine) -> bool:
    return row.outcome != "pass" and row.is_quality


def _location(row: GateLine, results: Mapping[str, Any]) -> dict[str, Any]:
    path, line = place(results["recipe_file"], row.name)
    found: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": path}, "region": {"startLine": line}},
    }
    if _is_harm(row) and results["suspects"]:
        found["logicalLocations"] = [
            {"fullyQualifiedName": one["name"], "kind": "module"} for one in results["suspects"]
        ]
    return found
