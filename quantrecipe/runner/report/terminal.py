"""The verdict for a terminal: one line a gate, then what stands out and what to try."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

from quantrecipe.runner.report.rows import GateLine, gate_rows
from quantrecipe.runner.verdict import plain

WIDTH = 110


def render(results: Mapping[str, Any]) -> str:
    """Plain text."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Mapping[str, Any]) -> Iterator[str]:
    yield from wrap(plain(results["verdict"]["sentence"]), WIDTH)
    rows = gate_rows(results)
    if rows:
        yield ""
        width = max(len(row.name) for row in rows)
        for row in rows:
            yield from _gate(row, width)
    yield from _section("Layers that stand out", [f"{one['name']}: {one['why']}" for one in results["suspects"]])
    yield from _section("What to try next", [_step(step) for step in results["next"]])


def _gate(row: GateLine, width: int) -> Iterator[str]:
    yield f"{row.outcome:6}  {row.name:{width}}  {row.measured}, limit {row.limit}"
    if row.outcome != "pass":
        yield from (f"{'':6}  {'':{width}}  {line}" for line in wrap(row.why, WIDTH - width - 10))


def _step(step: Mapping[str, Any]) -> str:
    return step["action"] if not step["rule"] else f"{step['action']} ({step['rule']})"


def _section(title: str, lines: list[str]) -> Iterator[str]:
    if lines:
        yield from ("", title)
        for line in lines:
            yield from wrap(line, WIDTH, initial_indent="  ", subsequent_indent="    ")
