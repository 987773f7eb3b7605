"""Accuracy from perplexity: curves by kind of task, fitted to quantiles, and how far they can be trusted.

A row is judged by curves and by a perplexity model that both never saw its group of linked sources.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prediction_calibration import TARGET, build
from prediction_regression import Observation, query_of, weighted
from scipy.optimize import minimize

from quantrecipe.rules import evidence_table as table
from quantrecipe.rules.evidence_row import EvidenceRow
from quantrecipe.rules.prediction_accuracy import LEAST_LOSS, METRICS, TASKS, Shape, lost_share
from quantrecipe.rules.prediction_model import PredictionModel
from quantrecipe.rules.prediction_scale import logistic_quantile, to_loss

Array = NDArray[np.float64]
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)  # quantiles that are fitted
TUNED = ("finetuned", "bf16 full finetune", "bf16 replication")  # adapters were trained: not quantization's doing
ENCODERS = ("t5", "roberta")
START = (1.0, 0.7, 1.0, 0.02)  # log k, power, stretch, noise
SPREAD = (1.5, 0.3, 0.5, 1.0)  # of their priors (the noise's in logs)


@dataclass(frozen=True)
class Score:
    """One accuracy row: its kind of task, published u, and the perplexity's latent place without its group."""

    row: EvidenceRow
    kind: str
    group: str
    lost: float
    z: float
    width: float
    weight: float = 1.0


def usable() -> list[tuple[EvidenceRow, str, float]]:
    """(row, group, u): decoders, something quantized, no misprints, quotes, or fine-tuning."""
    everything = table.load()
    groups = table.linked_groups(everything)
    found = []
    for row in table.deduplicate(everything):
        lost = lost_share(row)
        quantized = min(row.bits, row.act_bits, row.kv_bits) < 16
        out = row.suspect or row.params_b <= 0 or row.method in TUNED or row.family in ENCODERS
        if lost is not None and quantized and not out:
            found.append((row, groups[row.source], lost))
    return found


def scores(found: list[Observation], widths: dict[str, float]) -> list[Score]:
    """Every usable row, its perplexity predicted without its group of sources."""
    rows = usable()
    models = {
        name: build(weighted([o for o in found if o.group != name]), widths) for name in {g for _, g, _ in rows}
    }
    placed = [_score(row, group, lost, models[group]) for row, group, lost in rows]
    cells = Counter(_cell(s) for s in placed)
    sizes = Counter(group for group, _ in {(s.group, _cell(s)) for s in placed})
    return [
        Score(s.row, s.kind, s.group, s.lost, s.z, s.width, 1 / cells[_cell(s)] / sizes[s.group] ** 0.5)
        for s in placed
    ]


def _score(row: EvidenceRow, group: str, lost: float, model: PredictionModel) -> Score:
    place = model.place(model.resolved(query_of(row)._replace(model_key="")))
    return Score(row, TASKS[row.metric][0], group, lost, place.z, place.width)


def _cell(s: Score) -> tuple[object, ...]:
    """A cell's tasks of one kind share a vote."""
    return (s.row.source, s.kind, query_of(s.row))


def fit_shapes(found: Sequence[Score]) -> dict[str, Shape]:
    """The curve of each kind, by the pinball loss at five quantiles under weak priors."""
    return {kind: _fit([s for s in found if s.kind == kind]) for kind in METRICS}


def _fit(found: Sequence[Score]) -> Shape:
    lost, weight = np.array([s.lost for s in found]), np.array([s.weight for s in found])
    z, width = np.array([s.z for s in found]), np.array([s.width for s in found])
    weight = weight / weight.sum() * len(weight) if len(weight) else weight

    def loss(beta: Array) -> float:
        shape = Shape(beta[0], math.exp(beta[1]), math.exp(beta[2]), math.exp(beta[3]))
        total = sum(float(weight @ _pinball(lost - quantile(shape, z, width, p), p)) for p in LEVELS)
        off = (beta - _start()) / np.array(SPREAD)
        return total / shape_scale + 0.5 * float(off @ off)

    shape_scale = 0.02  # the pinball loss of a typical row: what one row's vote is worth against the priors
    best = minimize(loss, _start(), method="Nelder-Mead", options={"maxiter": 4000, "xatol": 1e-3, "fatol": 1e-3}).x
    return Shape(float(best[0]), math.exp(best[1]), math.exp(best[2]), math.exp(best[3]))


def _start() -> Array:
    return np.array([START[0], *(math.log(v) for v in START[1:])])


def _pinball(error: Array, p: float) -> Array:
    return np.maximum(p * error, (p - 1) * error)


def quantile(shape: Shape, z: Array, width: Array, p: float) -> Array:
    """u's quantile for many rows."""
    q = logistic_quantile(p)
    losses = np.array([max(to_loss(v), LEAST_LOSS) for v in z + shape.stretch * width * q])
    return np.asarray(-np.expm1(-np.exp(shape.log_k) * losses**shape.power) + shape.noise * q)


def held_out(found: Sequence[Score]) -> dict[str, dict[str, Shape]]:
    """group -> the curves that never saw it."""
    return {name: fit_shapes([s for s in found if s.group != name]) for name in {s.group for s in found}}


def inside(s: Score, shapes: dict[str, Shape], factor: float) -> bool:
    """Whether a row lies in its 80 % interval, both widths times ``factor``."""
    shape = widened(shapes[s.kind], factor)
    low, high = (float(quantile(shape, np.array([s.z]), np.array([s.width]), p)[0]) for p in (0.1, 0.9))
    return low <= s.lost <= high


def widened(shape: Shape, factor: float) -> Shape:
    return shape._replace(stretch=shape.stretch * factor, noise=shape.noise * factor)


def widening(found: Sequence[Score], without: dict[str, dict[str, Shape]]) -> float:
    """The least factor at which TARGET of the rows, weighted and plain, lie inside, each judged without its group."""
    weight = np.array([s.weight for s in found])
    for factor in np.arange(0.6, 4.0, 0.05):
        held = np.array([inside(s, without[s.group], float(factor)) for s in found])
        if min(float(held.mean()), float(weight @ held / weight.sum())) >= TARGET:
            return float(factor)
    return 4.0


@dataclass(frozen=True)
class Accuracy:
    """What ships, and the rows' coverage: each judged by curves and a factor fitted without its group."""

    shapes: dict[str, Shape]
    found: list[Score]
    covered: list[bool]

    def data(self) -> dict[str, list[float]]:
        return {kind: [round(v, 4) for v in shape] for kind, shape in self.shapes.items()}


def accuracy(observed: list[Observation], widths: dict[str, float]) -> Accuracy:
    """Curves, widened, with their honest coverage."""
    found = scores(observed, widths)
    without = held_out(found)
    factor = widening(found, without)
    factors = {name: widening([s for s in found if s.group != name], without) for name in without}
    covered = [inside(s, without[s.group], factors[s.group]) for s in found]
    shapes = {kind: widened(shape, factor) for kind, shape in fit_shapes(found).items()}
    return Accuracy(shapes, found, covered)
