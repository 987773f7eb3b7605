"""Published cells as anchors: what the tables say of one model, scheme and method, made consistent in order."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
from prediction_regression import Observation

from quantrecipe.rules.prediction_features import METHOD_CLASS, SOLVED
from quantrecipe.rules.prediction_model import Coordinates, PredictionModel, anchor_key, coordinates, not_coarser
from quantrecipe.rules.prediction_scale import of_exponent

CELL_SD = 0.75  # how far a cell lies from the regression, on z: the prior that its rows are weighed against
SOURCE_SD = 0.25  # how far one source's number lies from the next one's
Cells = dict[Coordinates, tuple[float, int, float]]  # z, groups of sources, spread


def anchors(model: PredictionModel, found: list[Observation]) -> dict[str, dict[str, list[Any]]]:
    """model key -> method key -> cells. Act-order borrows the other cells and the other way round."""
    cells: dict[str, dict[str, dict[Coordinates, list[Observation]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for o in found:
        cells[o.query.model_key][anchor_key(o.query)][coordinates(o.query)].append(o)
    out: dict[str, dict[str, list[Any]]] = {}
    for key, methods in cells.items():
        computed = {m: {at: _cell(model, obs) for at, obs in c.items()} for m, c in methods.items()}
        for name, mine in computed.items():
            _conflict(mine, computed.get("ptq-unnamed|int|int|", {}), name)
        for name in [n for n in computed if METHOD_CLASS.get(n.split("|")[0]) == SOLVED]:
            _lend(computed, name.removesuffix("order"), name.removesuffix("order") + "order")
        out[key] = {name: _ordered(c) for name, c in sorted(computed.items()) if c}
    return out


def _lend(computed: dict[str, Cells], plain: str, ordered: str) -> None:
    """With and without act-order, a cell that only one of them published serves the other."""
    a, b = computed.get(plain, {}), computed.get(ordered, {})
    computed[plain], computed[ordered] = {**b, **a}, {**a, **b}


def _cell(model: PredictionModel, found: list[Observation]) -> tuple[float, int, float]:
    """(z, number of groups, spread): the regression pulled to the mean over groups of linked sources."""
    by_group: dict[str, list[float]] = defaultdict(list)
    for o in found:
        by_group[o.group].append(o.z)
    means = [float(np.mean(v)) for v in by_group.values()]
    expected = of_exponent(model.exponent(found[0].query))
    trust = CELL_SD**2 / (CELL_SD**2 + SOURCE_SD**2 / len(means))
    spread = float(np.std(means)) * math.sqrt(3) / math.pi if len(means) > 1 else 0.0
    return expected + trust * (float(np.mean(means)) - expected), len(means), spread


def _conflict(cells: Cells, unnamed: Cells, name: str) -> None:
    """A table that names no method contradicts GPTQ's own: widen, do not move."""
    if name.startswith("gptq|"):
        for at in cells.keys() & unnamed.keys():
            z, n, spread = cells[at]
            cells[at] = (z, n, max(spread, abs(unnamed[at][0] - z) / 4))


def _ordered(cells: Cells) -> list[Any]:
    """Halfway between the largest z at or below a cell and the smallest at or above: never falls with coarseness."""
    out = []
    for at, (_, n, spread) in sorted(cells.items()):
        below = max(c[0] for other, c in cells.items() if not_coarser(other, at))
        above = min(c[0] for other, c in cells.items() if not_coarser(at, other))
        out.append([list(at), round((below + above) / 2, 4), n, round(spread, 3)])
    return out
