"""results.json -> Markdown, by the jinja2 template beside this file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from quantrecipe.plugins.manager import report_sections
from quantrecipe.runner.paths import counts, kernel_lines, path_lines, reasons
from quantrecipe.runner.report.rows import comparison_rows, gate_rows, worst_layers
from quantrecipe.runner.verdict import percent
from quantrecipe.units import format_both, format_bytes

TEMPLATE = Path(__file__).with_name("report.md.j2")


def render(results: Mapping[str, Any], plot: str | None = None) -> str:
    """The report. plot: file name of the plot beside it."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {
        "bytes": format_bytes,
        "both": format_both,
        "percent": percent,
        "cell": cell,
        "code": code,
    }
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    runtime = results.get("runtime", [])
    text = template.render(
        r=results,
        plot=plot,
        fence=_fence(f"{results['recipe']}{results['command']}"),
        comparison=comparison_rows(results),
        gates=gate_rows(results),
        paths=path_lines(runtime),
        kernels=kernel_lines(runtime),
        counts=counts(runtime),
        reasons=reasons(runtime),
        worst=worst_layers(results["layers"]),
        sections=[(title, render_section(results)) for title, render_section in sorted(report_sections().items())],
    )
    return text.rstrip() + "\n"


def cell(value: object) -> str:
    """Text that cannot break a table or become markup."""
    text = " ".join(str(value).split())
    for character in "\\|<>`":
        text = text.replace(character, f"\\{character}")
    return text


def code(value: object) -> str:
    """Text for a code span in a table: only what would end either is replaced."""
    return " ".join(str(value).split()).replace("`", "'").replace("|", "\\|")


def _fence(text: str) -> str:
    """Backticks, more of them than stand together anywhere in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(3, longest + 1)
