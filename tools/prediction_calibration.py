"""Widths and their honesty: refit without a group (or family), see how far its rows fall, widen until 80 % hold.

Coverage is reported from widths that were themselves fitted without the group they are judged on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prediction_anchors import anchors
from prediction_regression import FIXED, Fit, Observation, fit, weighted
from scipy.optimize import minimize

from quantrecipe.rules.prediction_model import PredictionModel, regime
from quantrecipe.rules.prediction_scale import logistic_quantile

LEVELS = ("anchor", "model", "family", "none")
REGIMES = ("weights6+", "weights3-5", "weights<3", "activations", "kv")
NAMES = (*REGIMES, "anchor", "family", "none", "unseen method")  # "model" is the reference: 0
GUESS = {"weights6+": 0.4, "weights3-5": 0.35, "weights<3": 0.45, "activations": 0.6, "kv": 0.5,
         "anchor": 0.6, "family": 1.2, "none": 1.5, "unseen method": 1.3}  # fmt: skip
UNSEEN_FAMILY = 0.2  # a family that nobody tried is at least this much less certain (log width)
TARGET = 0.84  # widened to this share of held-out rows: widths fitted without a group cover a little less on it
NO_WIDTHS = dict.fromkeys((*NAMES, "model"), 0.0)
HALF = logistic_quantile(0.9)


@dataclass(frozen=True)
class Record:
    """One held-out row: what was left out, how far off the centre was, and what was known."""

    left_out: str
    observation: Observation
    z: float
    regime: str
    knowledge: str
    unseen_method: bool
    spread: float
    weight: float

    @property
    def error(self) -> float:
        return self.observation.z - self.z


def build(found: list[Observation], widths: dict[str, float], fitted: Fit | None = None) -> PredictionModel:
    """The run-time model from observations: the very class that answers, so that what is judged is what ships."""
    return PredictionModel(data(found, widths, fitted or fit(found)))


def data(found: list[Observation], widths: dict[str, float], fitted: Fit) -> dict[str, Any]:
    sizes: dict[str, set[float]] = defaultdict(set)
    for o in found:
        sizes[o.row.family].add(o.row.params_b)
    kept = {k: round(v, 5) for k, v in sorted(fitted.coefficients.items())
            if abs(v) > 1e-3 and not k.startswith(("source:", "metric:"))}  # fmt: skip
    kept |= FIXED
    out: dict[str, Any] = {
        "coefficients": kept, "sizes": {k: sorted(v) for k, v in sorted(sizes.items())},
        "methods": sorted({o.row.method for o in found}), "widths": widths, "baselines": {}, "anchors": {},
    }  # fmt: skip
    out["anchors"] = anchors(PredictionModel(out), found)
    return out


def held_out(found: list[Observation], key: Callable[[Observation], str]) -> list[Record]:
    """Every row predicted by a model that never saw its group."""
    records: list[Record] = []
    for name in sorted({key(o) for o in found}):
        inside = [o for o in found if key(o) == name]
        model = build(weighted([o for o in found if key(o) != name]), NO_WIDTHS)
        records += [_record(model, name, o) for o in inside]
    return records


def _record(model: PredictionModel, name: str, o: Observation) -> Record:
    q = model.resolved(o.query._replace(model_key=""))
    place = model.place(q)
    spread = next((a.spread for a in model.anchors(q) if place.anchored and abs(a.z - place.z) < 1e-9), 0.0)
    return Record(name, o, place.z, regime(q), place.knowledge, q.method not in model.methods, spread, o.weight)


def _columns(records: list[Record]) -> NDArray[np.float64]:
    out = np.zeros((len(records), len(NAMES)))
    for i, r in enumerate(records):
        out[i, NAMES.index(r.regime)] = 1
        if r.knowledge != "model":
            out[i, NAMES.index(r.knowledge)] = 1
        out[i, NAMES.index("unseen method")] = r.unseen_method
    return out


def fit_widths(records: list[Record]) -> dict[str, float]:
    """Log widths by logistic likelihood, "anchor" <= "model" <= "family" <= "none", then widened to TARGET."""
    x, error = _columns(records), np.abs([r.error for r in records])
    weight = np.array([r.weight for r in records])
    centre = np.array([np.log(GUESS.get(n, 1.0)) for n in NAMES])

    def loss(b: NDArray[np.float64]) -> float:
        b = _in_order(b)
        log_width = x @ b
        r = error * np.exp(-log_width)
        return float(weight @ (log_width + r + 2 * np.log1p(np.exp(-r))) + np.sum((b - centre) ** 2) / 0.5)

    best = _in_order(minimize(loss, centre, method="L-BFGS-B").x)
    base = dict(zip(NAMES, best.tolist(), strict=True))
    widen = _widening(error, x @ best, weight)
    return {n: round(v + (widen if n in REGIMES else 0.0), 4) for n, v in base.items()} | {"model": 0.0}


def _in_order(b: NDArray[np.float64]) -> NDArray[np.float64]:
    b = b.copy()
    a, f, n, u = (NAMES.index(k) for k in ("anchor", "family", "none", "unseen method"))
    b[a], b[f], b[u] = min(b[a], 0.0), max(b[f], 0.0), max(b[u], 0.0)
    b[n] = max(b[n], b[f] + UNSEEN_FAMILY)
    return b


def _widening(error: NDArray[np.float64], log_width: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    """What to add to every log width so that TARGET of the (weighted) errors lie inside."""
    ratio = np.log(np.maximum(error, 1e-9)) - log_width - np.log(HALF)
    order = np.argsort(ratio)
    share = np.cumsum(weight[order]) / weight.sum()
    return float(ratio[order][np.searchsorted(share, TARGET)])


def inside(r: Record, widths: dict[str, float]) -> bool:
    """Whether the printed number lies in the 80 % interval."""
    log_width = widths[r.regime] + widths[r.knowledge] + (widths["unseen method"] if r.unseen_method else 0.0)
    return abs(r.error) <= HALF * max(float(np.exp(log_width)), r.spread)


def coverage(records: list[Record]) -> dict[str, tuple[int, float]]:
    """Left-out name -> (rows, share inside), the widths fitted on the others; "all" = every row alike."""
    out: dict[str, tuple[int, float]] = {}
    hits: list[bool] = []
    for name in sorted({r.left_out for r in records}):
        widths = fit_widths([r for r in records if r.left_out != name])
        here = [inside(r, widths) for r in records if r.left_out == name]
        out[name], hits = (len(here), float(np.mean(here))), hits + here
    out["all"] = (len(hits), float(np.mean(hits)))
    return out
