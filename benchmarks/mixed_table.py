"""The results of benchmarks/mixed.py as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantrecipe.mixed.mix import Measured
from quantrecipe.runner.intervals import Interval

HEAD = [
    "| model | bytes of | KL uniform | KL mixed | difference (95 %) | perplexity uniform | mixed | mixed against uniform (95 %) | files | of the budget | predicted / measured KL |",  # noqa: E501
    "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
]


def table(out: Path) -> str:
    """All rows that are there."""
    found = {path.parent.name: {} for path in sorted(out.glob("*/*.json"))}
    for path in sorted(out.glob("*/*.json")):
        found[path.parent.name][path.stem] = json.loads(path.read_text())
    lines = [*HEAD, *(line for model, rows in found.items() for line in _compared(model, rows))]
    return "\n".join([*lines, "", *(line for model, rows in found.items() for line in _others(model, rows))])


def _compared(model: str, rows: dict[str, Any]) -> Iterator[str]:
    for name, row in rows.items():
        if "trials" in row:
            uniform, mixed = (Measured.from_json(row["rows"][which]) for which in ("uniform", "mixed"))
            trial = min(row["trials"], key=lambda one: one["measured"])
            yield (
                f"| {model} | {name} | {uniform.mean_kl:.4f} | {mixed.mean_kl:.4f} | "
                f"{_numbers(mixed.less_kl_than(uniform))} | {uniform.perplexity:.3f} | {mixed.perplexity:.3f} | "
                f"{_percent(mixed.perplexity_against(uniform))} | {mixed.file_bytes:,} | "
                f"{mixed.file_bytes / uniform.file_bytes:.3%} | {trial['predicted'] / trial['measured']:.2f} |"
            )


def _others(model: str, rows: dict[str, Any]) -> Iterator[str]:
    for name, row in rows.items():
        if name == "time":
            gptq = row["gptq"]["cpu"]
            parts = ", ".join(f"{one} {row[one]['cpu'] / gptq:.2f}" for one in ("low", "default"))
            yield (
                f"- {model}: measuring in passes of GPTQ ({gptq:.0f} CPU s over {row['sequences']} tokens, "
                f"{row['options']} options a layer): {parts}"
            )
        elif name == "exhaustive":
            yield (
                f"- {model}: {row['mixes']} mixes of {len(row['units'])} units, {row['measured']} of them full: "
                f"best KL {row['best']:.5f}, chosen {row['mixed']:.5f} ({row['mixed'] / row['best'] - 1:+.1%}), "
                f"as first predicted {row['first']:.5f}, worst {row['worst']:.5f}"
            )
        elif name.startswith("autoround-"):
            yield f"- {model}: {_autoround(name, row)}"


def _autoround(name: str, row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"auto-round's AutoScheme at {name.removeprefix('autoround-')} bits does not run: {row['failed']}"
    ours, theirs = (Measured.from_json(row[which]) for which in ("ours", "theirs"))
    return (
        f"auto-round's AutoScheme at {row['bits']} average bits ({row['cpu']:.0f} CPU s), its scheme by our GPTQ: "
        f"KL {theirs.mean_kl:.4f}, perplexity {theirs.perplexity:.3f}; ours in the same bytes: {ours.mean_kl:.4f}, "
        f"{ours.perplexity:.3f} (KL {_numbers(ours.less_kl_than(theirs))})"
    )


def _numbers(found: Interval) -> str:
    return f"{found.value:+.4f} ({found.low:+.4f} … {found.high:+.4f})"


def _percent(found: Interval) -> str:
    return f"{found.value:+.2%} ({found.low:+.2%} … {found.high:+.2%})"
