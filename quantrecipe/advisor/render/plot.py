"""Memory against predicted loss as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantrecipe.advisor.advice import Advice
from quantrecipe.advisor.candidate import Candidate
from quantrecipe.advisor.constraints import UNLIMITED
from quantrecipe.errors import OutputError, QuantRecipeError

FORMATS = (".png", ".svg", ".pdf")
_LEAST = 0.01  # percent: smaller losses are drawn here, since the axis is logarithmic
_NEAR = 0.35  # labels nearer than this, in e-folds of the loss and of the memory together, would overlap


def draw(advice: Advice, path: Path) -> None:
    """The frontier, the recommendation and the budget, written to ``path``.

    Raises QuantRecipeError where the ending names no picture format or matplotlib is missing.
    """
    if path.suffix.lower() not in FORMATS:
        raise QuantRecipeError("not a picture format", value=path.name, limit=", ".join(FORMATS))
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise QuantRecipeError("--plot needs matplotlib", remedy="pip install 'quantrecipe[run]'") from error
    figure = Figure(figsize=(9, 5))
    _fill(figure.subplots(), advice)
    try:
        figure.savefig(path, bbox_inches="tight", dpi=150)
    except OSError as error:
        raise OutputError("cannot write the picture", value=str(path), limit=error.strerror) from error


def _point(one: Candidate) -> tuple[float, float]:
    """GB and percent."""
    return one.memory.total_bytes / 1e9, max(one.loss * 100, _LEAST)


def _fill(axes: Any, advice: Advice) -> None:
    points = [_point(one) for one in advice.frontier]
    axes.plot([x for x, _ in points], [y for _, y in points], "o-", color="#4477aa", label="frontier")
    for one in _apart(advice.frontier):
        axes.annotate(one.label, _point(one), fontsize=7, xytext=(6, 4), textcoords="offset points")
    if advice.recommended:
        x, y = _point(advice.recommended)
        axes.plot([x], [y], "D", color="#cc3311", markersize=9, label=f"recommended: {advice.recommended.label}")
    if advice.asked.memory < UNLIMITED:
        axes.axvline(advice.asked.memory / 1e9, color="#555555", linestyle="--", label="budget")
    axes.set(xlabel="total memory, GB", ylabel="predicted increase of perplexity, %", yscale="log")
    axes.set_title(f"{advice.model.id}, {advice.asked.context:,} tokens")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    axes.margins(x=0.15)


def _apart(frontier: list[Candidate]) -> Iterator[Candidate]:
    """Points whose labels do not run into the last one's."""
    last: tuple[float, float] | None = None
    for one in frontier:
        x, y = _point(one)
        if last is None or abs(math.log(x / last[0])) + abs(math.log(y / last[1])) > _NEAR:
            last = (x, y)
            yield one
