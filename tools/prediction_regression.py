"""The regression behind quantrecipe/rules/prediction.py: penalised maximum likelihood on the latent scale."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from quantrecipe.rules import evidence_table as table
from quantrecipe.rules.evidence_row import EvidenceRow
from quantrecipe.rules.prediction_features import (
    Query,
    activation_features,
    kv_features,
    weight_features,
)
from quantrecipe.rules.prediction_scale import FLOOR, to_latent

Array = NDArray[np.float64]
MAX_STEPS, TOLERANCE = 100, 1e-4
BROKEN, BROKEN_SHARE = 1.5, 0.1  # above 1.5 nats a number says "at least this", and counts a tenth as itself
NOISE = 0.25  # logistic scale while fitting; answers use the calibrated ones
# Standard deviations of the priors, in nats of log E. A prefix counts for every name that starts with it.
PRIORS = {
    "source:": 0.35, "metric:": 0.2, "w:family:": 0.5, "w:model:": 0.3, "a:family:": 1.0, "a:model:": 0.4,
    "w:method:": 0.5, "a:method:": 1.5, "k:family:": 0.4, "w:plain:b": 1.0, "w:scaled:b": 1.0, "w:solved:b": 1.0,
    "w:learned:b": 1.0, "w:plain:size": 0.15, "w:scaled:size": 0.15, "w:solved:size": 0.15,
    "w:learned:size": 0.15, "w:size": 0.3, "w:trained": 0.5, "w:symmetric": 0.3, "w:actorder": 0.5,
    "w:float": 0.5, "a:float": 1.5, "a:size": 0.5, "a:tensor": 1.0, "k:size": 0.2, "w:group": 0.3, "w:row": 0.5,
    "w:plain:row": 1.5, "w:scaled:row": 1.5, "w:solved:row": 1.0, "w:learned:row": 1.0, "w:b": 2.0, "a:b": 2.0,
    "k:b": 1.5, "w:1": 20.0, "a:1": 20.0, "k:1": 20.0,
}  # fmt: skip
CENTRES = {"w:b6": 2.0, "w:b5": 1.0, "w:b4": 1.2, "w:b3": 1.4, "w:b2": 1.4, "a:b6": 2.0, "a:b4": 2.0, "k:b4": 3.0,
           "k:b3": 1.0}  # fmt: skip
# Not estimable from the tables (no row between 8 and 16 bits; no row with activation groups).
# By judgement. a:finer, an octave of activation group: a digest of arXiv:2303.08302 has OPT-30B W4A8 at about
# +0.1 PPL with groups, its slides at +10 per token. w:method:nf4: below Int4 in QLoRA's table 2, which prints no
# baseline, so the size of the gain is a guess.
FIXED = {"w:b8": 6.0, "a:b8": 6.0, "k:b8": 6.0, "a:finer": 0.8, "w:method:rtn": 0.0, "w:method:nf4": -0.3}
INCREASING = ("w:b", "w:plain:b", "w:scaled:b", "w:solved:b", "w:learned:b", "w:group", "w:row", "w:plain:row",
              "w:scaled:row", "w:solved:row", "w:learned:row", "w:symmetric", "a:b", "a:tensor", "k:b")  # fmt: skip
DECREASING = ("w:actorder",)


@dataclass(frozen=True)
class Observation:
    """One printed loss, as the fit sees it."""

    row: EvidenceRow
    query: Query
    z: float
    group: str
    weight: float = 1.0


@dataclass
class Fit:
    """Coefficients by name; a name that is missing counts as 0."""

    coefficients: dict[str, float] = field(default_factory=dict)


def model_key(family: str, params_b: float) -> str:
    return f"{family}-{params_b:g}"


def query_of(row: EvidenceRow) -> Query:
    return Query(
        family=row.family, params_b=row.params_b, bits=row.bits, group_size=row.group_size,
        symmetric=row.symmetric, act_bits=row.act_bits, act_group=None, kv_bits=row.kv_bits, method=row.method,
        act_order=row.act_order, act_scope=row.act_scope, weight_type=row.weight_type, act_type=row.act_type,
        model_key=model_key(row.family, row.params_b),
    )  # fmt: skip


def observations() -> list[Observation]:
    """Every usable loss once: no suspects, no quotes, something quantized, the cells' metrics sharing a vote."""
    everything = table.load()
    groups = table.linked_groups(everything)
    usable = [r for r in everything if r.loss is not None and not r.suspect and r.params_b > 0
              and r.bits > 0 and min(r.bits, r.act_bits, r.kv_bits) < 16]  # fmt: skip
    found = [Observation(r, query_of(r), to_latent(r.loss or 0.0), groups[r.source])
             for r in table.deduplicate(usable)]  # fmt: skip
    return weighted(found)


def cell_of(o: Observation) -> tuple[object, ...]:
    return (o.row.source, o.query)


def weighted(found: list[Observation]) -> list[Observation]:
    """A cell's data sets share one vote; a group of sources counts with the square root of its cells."""
    metrics = Counter(cell_of(o) for o in found)
    cells = Counter(group for group, _ in {(o.group, cell_of(o)) for o in found})
    raw = [1.0 / metrics[cell_of(o)] / cells[o.group] ** 0.5 for o in found]
    scale = len(metrics) / sum(raw)
    return [Observation(o.row, o.query, o.z, o.group, w * scale) for o, w in zip(found, raw, strict=True)]


def shared_features(o: Observation) -> dict[str, float]:
    """Effects on the whole loss that an answer leaves out: the source's own, and the data set's."""
    out = {f"source:{o.row.source}": 1.0}
    if o.row.metric not in ("ppl_wiki2", "ppl_wikitext", "ppl_unnamed"):
        out[f"metric:{o.row.metric}"] = 1.0
    return out


@dataclass(frozen=True)
class Design:
    """Three matrices of features (weights, activations, KV), one row an observation, and which parts exist."""

    names: list[str]
    parts: list[Array]
    present: Array
    z: Array
    weight: Array


def design(found: list[Observation]) -> Design:
    index: dict[str, int] = {}
    cells: list[tuple[int, int, int, float]] = []
    present = np.zeros((3, len(found)))
    for i, o in enumerate(found):
        for part, features in enumerate((weight_features, activation_features, kv_features)):
            values = features(o.query)
            if values is None:
                continue
            present[part, i] = 1
            for name, value in {**values, **shared_features(o)}.items():
                cells.append((part, i, index.setdefault(name, len(index)), value))
    parts = [np.zeros((len(found), len(index))) for _ in range(3)]
    for part, i, j, value in cells:
        parts[part][i, j] = value
    return Design(list(index), parts, present, np.array([o.z for o in found]),
                  np.array([o.weight for o in found]))  # fmt: skip


def prior(name: str) -> tuple[float, float]:
    """(centre, standard deviation): the longest known prefix speaks."""
    best = max((p for p in PRIORS if name.startswith(p)), key=len)
    return CENTRES.get(name, 0.0), PRIORS[best]


def bounds(name: str) -> tuple[float | None, float | None]:
    if name in FIXED:
        return FIXED[name], FIXED[name]
    if name.startswith(INCREASING) and not name.endswith("size"):
        return 0.0, None
    return (None, 0.0) if name.startswith(DECREASING) else (None, None)


def latent(d: Design, beta: Array) -> tuple[Array, Array]:
    """(z predicted, d z / d exponent of each part) for a design and its coefficients."""
    exponents = np.where(d.present > 0, np.stack([x @ beta for x in d.parts]), -np.inf)
    top = exponents.max(axis=0)
    shares = np.exp(exponents - top)
    total = shares.sum(axis=0)
    size = np.exp(np.minimum(top + np.log(total), 30.0)) / FLOOR
    return np.arcsinh(size) + np.log(FLOOR / 2), shares / total * size / np.sqrt(1 + size**2)


class Objective:
    """Minus the log posterior of the coefficients, its gradient, and its Gauss-Newton curvature."""

    def __init__(self, d: Design, noise: float) -> None:
        self.d, self.noise = d, noise
        self.measured = np.where(d.z > to_latent(BROKEN), BROKEN_SHARE, 1.0)
        self.centre, self.spread = np.array([prior(n) for n in d.names]).T

    def value(self, beta: Array) -> float:
        r = (self.d.z - latent(self.d, beta)[0]) / self.noise
        off = (beta - self.centre) / self.spread
        full, broken = 2 * np.logaddexp(0, -r) + r, np.logaddexp(0, r)
        return float(self.d.weight @ (self.measured * full + (1 - self.measured) * broken) + 0.5 * off @ off)

    def slope(self, beta: Array) -> tuple[Array, Array]:
        z, slopes = latent(self.d, beta)
        jacobian = np.asarray(sum(s[:, None] * x for s, x in zip(slopes, self.d.parts, strict=True)))
        r = (self.d.z - z) / self.noise
        odds = 1 / (1 + np.exp(-np.clip(r, -40, 40)))  # d/dr of the censored term; 2 x it - 1 of the full one
        pull = self.measured * (2 * odds - 1) + (1 - self.measured) * odds
        bend = (1 + self.measured) * np.maximum(odds * (1 - odds), 0.02)
        curvature = jacobian.T @ (jacobian * (self.d.weight * bend / self.noise**2)[:, None])
        curvature += np.diag(self.spread**-2)
        push = self.d.weight * pull / self.noise
        return (beta - self.centre) / self.spread**2 - jacobian.T @ push, curvature


def fit(found: list[Observation], noise: float = NOISE) -> Fit:
    """Maximum a posteriori under logistic noise on z (heavy tails: a paper's slip does not bend the rest)."""
    d = design(found)
    objective = Objective(d, noise)
    limits = [bounds(n) for n in d.names]
    low = np.array([-np.inf if lo is None else lo for lo, _ in limits])
    high = np.array([np.inf if hi is None else hi for _, hi in limits])
    start = np.array([_start(n, c, limit) for n, c, limit in zip(d.names, objective.centre, limits, strict=True)])
    return Fit(dict(zip(d.names, _descend(objective, start, low, high).tolist(), strict=True)))


def _descend(objective: Objective, beta: Array, low: Array, high: Array) -> Array:
    """Projected Gauss-Newton: coefficients pushed against their bound rest there, the others move together."""
    now = objective.value(beta)
    for _ in range(MAX_STEPS):
        gradient, curvature = objective.slope(beta)
        free = ~(((beta <= low) & (gradient > 0)) | ((beta >= high) & (gradient < 0)))
        step = np.zeros_like(beta)
        step[free] = -np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
        before = now
        for share in 0.5 ** np.arange(12):
            tried = np.clip(beta + share * step, low, high)
            if (value := objective.value(tried)) < now:
                beta, now = tried, value
                break
        if before - now < TOLERANCE:
            break
    return beta


def _start(name: str, centre: float, limit: tuple[float | None, float | None]) -> float:
    if limit[0] is not None and limit[0] == limit[1]:
        return limit[0]
    return {"w:1": -11.0, "a:1": -9.0, "k:1": -13.0}.get(name, centre)


def predict_latent(f: Fit, found: list[Observation], own: bool = False) -> Array:
    """z for each observation; ``own`` = with its source's effect (known only to a source that was fitted)."""
    d = design(found)
    keep = [n in f.coefficients and (own or not n.startswith("source:")) for n in d.names]
    beta = np.array([f.coefficients[n] if k else FIXED.get(n, 0.0) for n, k in zip(d.names, keep, strict=True)])
    return latent(d, beta)[0]
