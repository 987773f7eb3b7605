"""How well cheap measures rank layers and schemes, by the dearest that was taken on the model at hand."""

from __future__ import annotations

from typing import NamedTuple

from quantrecipe.mixed.table import LossTable

#: Of measures/, from cheap to dear.
LADDER = ("weight", "diagonal", "hessian", "block", "kl")
_LEAST = 8


class Correlation(NamedTuple):
    """Spearman's rank correlation of a measure with the dearest, over ``cells`` pairs of unit and option."""

    measure: str
    dearest: str
    rank: float
    cells: int


def correlations(table: LossTable) -> tuple[Correlation, ...]:
    """One for each cheaper measure that shares at least eight cells with the dearest, those of no loss left out."""
    from scipy.stats import spearmanr

    taken = [name for name in LADDER if len(table.figures.get(name, ())) >= _LEAST]
    found = []
    for name in taken[:-1]:
        cheap, dear = table.figures[name], table.figures[taken[-1]]
        cells = [cell for cell in sorted(cheap) if dear.get(cell, 0.0) > 0]
        columns = [cheap[cell] for cell in cells], [dear[cell] for cell in cells]
        if len(cells) >= _LEAST and all(len(set(column)) > 1 for column in columns):
            found.append(Correlation(name, taken[-1], float(spearmanr(*columns).statistic), len(cells)))
    return tuple(found)


_WORDS = {"weight": "weight error", "diagonal": "Hessian's diagonal", "hessian": "Hessian", "block": "block's output"}


def correlation_line(found: tuple[Correlation, ...]) -> str:
    """One sentence; empty where there is nothing to say."""
    if not found:
        return ""
    dearest = {"kl": "KL of the whole model", "block": "the block's output error"}.get(
        found[0].dearest, found[0].dearest
    )
    listed = ", ".join(f"{_WORDS[one.measure]} {one.rank:.2f}" for one in found)
    return f"rank correlation with {dearest} over {found[0].cells} layers and schemes: {listed}"
