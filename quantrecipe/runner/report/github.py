"""GitHub: an annotation a gate that did not pass, as workflow commands; the Markdown report is the step's summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantrecipe.runner.recipe_source import place
from quantrecipe.runner.report.rows import GateLine, gate_rows
from quantrecipe.runner.verdict import plain

LEVELS = {"fail": "error", "unsure": "warning"}


def render(results: Mapping[str, Any]) -> str:
    """Lines for standard output."""
    lines = [_annotation(row, results) for row in gate_rows(results) if row.outcome != "pass"]
    return "\n".join([*lines, plain(results["verdict"]["sentence"])]) + "\n"


def _annotation(row: GateLine, results: Mapping[str, Any]) -> str:
    path, line = place(results["recipe_file"], row.name)
    text = f"{row.measured}, limit {row.limit}; {row.why}"
    if row.is_quality and results["suspects"]:
        text += f"\nLayers that stand out: {', '.join(one['name'] for one in results['suspects'])}"
    where = f"file={_property(path)},line={line},title={_property(f'quantrecipe: {row.name}')}"
    return f"::{LEVELS[row.outcome]} {where}::{_data(text)}"


def _data(text: str) -> str:
    """As GitHub's runner unescapes it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
