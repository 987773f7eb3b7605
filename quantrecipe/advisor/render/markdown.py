"""The answer as Markdown, to paste in a ticket."""

from __future__ import annotations

from collections.abc import Sequence

from quantrecipe.advisor.advice import Advice
from quantrecipe.advisor.render.text import budget_line, describe, memory_rows, quality_line, share
from quantrecipe.recipe_text import recipe_yaml
from quantrecipe.units import format_bytes


def render_markdown(advice: Advice) -> str:
    """Verdict first, then memory, reasons, alternatives and the recipe."""
    one = advice.recommended
    lines = [f"## {advice.model.id} in {budget_line(advice)}", ""]
    if one is None:
        lines += ["**Nothing fits.**", ""]
        lines += [f"- {o.change}: {o.candidate}, {format_bytes(o.total_bytes)}" for o in advice.offers]
        return "\n".join(lines) + "\n"
    lines += [f"**{describe(one)}: {one.verdict}**, {format_bytes(one.memory.total_bytes)}; {quality_line(one)}.", ""]
    rows = [(name.strip(), f"{size / 1e9:.2f}", f"{size / 2**30:.2f}") for name, size in memory_rows(one.memory)]
    lines += [*_table(("memory", "GB", "GiB"), rows), ""]
    lines += ["### Why", "", *(f"- {r.finding} ({r.source}; `{r.id}`)" for r in advice.reasons), ""]
    lines += ["### Mind", "", *(f"- {text}" for text in advice.warnings), ""] if advice.warnings else []
    others = [
        (c.label, format_bytes(c.memory.total_bytes), share(c.loss) if c.prediction else "", c.rejected[0].text)
        for c in advice.alternatives[:12]
    ]
    lines += ["### Also weighed", "", *_table(("", "memory", "loss", "not taken because"), others), ""]
    lines += ["### Recipe", "", "```yaml", recipe_yaml(advice.recipe_data or {}).rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    line = "|".join(["", *(" --- " for _ in head), ""])
    return [_row(head), line, *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
