"""The fitted model as data, and what it says of one question: a place and a width on the latent scale.

Coefficients, anchors (published cells) and widths come from prediction_model.json, written by
tools/fit_prediction.py. An answer needs no array library: a few dozen sums.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from quantrecipe.rules.prediction_features import (
    METHOD_CLASS,
    PLAIN,
    SOLVED,
    Features,
    Query,
    activation_features,
    kv_features,
    octaves,
    weight_features,
)
from quantrecipe.rules.prediction_scale import log_sum, of_exponent, to_exponent

FILE = Path(__file__).with_name("prediction_model.json")
SAME_SIZE = math.log(1.12)  # "7B" is printed for 6.7 to 7.6 billion
NEAR_BITS, NEAR_SIZE = 0.5, math.log(4.0)  # what counts as the neighbourhood
SYMMETRY_WIDTH = 0.2  # what symmetric costs over asymmetric varies; by judgement, no table isolates it
# Where no model of this size and family was published, a calibrated method keeps at most this share of
# round-to-nearest's loss: the 9th decile of 16 published pairs under 0.6B at 4 bits (median 0.47, GPTQ).
CALIBRATED_SHARE = 0.75
SMALL_PART = 0.25  # a cache that adds less than this share of the rest leaves the width alone
REMEMBERED = 8192  # answers kept
Coordinates = tuple[float, ...]


class Anchor(NamedTuple):
    """A published cell of one model and method: where it lies in the order of coarseness, z, sources, spread."""

    at: Coordinates
    z: float
    sources: int
    spread: float


class Place(NamedTuple):
    """The answer on the latent scale: centre, logistic width, and its part that a model's schemes differ by."""

    z: float
    width: float
    own_width: float
    knowledge: str
    anchored: bool


def coordinates(q: Query) -> Coordinates:
    """Larger in each place = coarser: bits, group, symmetry, then the activations' and the cache's."""
    whole_row = 0.0 if q.group_size else 1.0
    act_group = octaves(q.act_group) if q.act_bits < 16 else 0.0
    grid = (octaves(q.group_size) + whole_row, 1.0 if q.symmetric else 0.0) if q.bits < 16 else (0.0, 0.0)
    return (-q.bits, *grid, -float(q.act_bits), act_group, 1.0 if q.act_scope == "tensor" else 0.0,
            -float(q.kv_bits))  # fmt: skip


def not_coarser(a: Coordinates, b: Coordinates) -> bool:
    """Whether a is at least as fine as b in every respect."""
    return all(x <= y for x, y in zip(a, b, strict=True))


def regime(q: Query) -> str:
    """Which width applies: activations, or weights at 6 and more, 3 to 6, under 3 bits, or the cache alone."""
    if q.act_bits < 16:
        return "activations"
    if q.bits >= 16:
        return "kv"
    return "weights6+" if q.bits >= 6 else "weights3-5" if q.bits >= 3 else "weights<3"


def anchor_key(q: Query) -> str:
    """Act-order has anchors of its own (where the method has one); float codes too."""
    ordered = q.act_order and METHOD_CLASS.get(q.method) == SOLVED
    return f"{q.method}|{q.weight_type}|{q.act_type}|{'order' if ordered else ''}"


class PredictionModel:
    """Coefficients by name, anchors by model and method, widths by regime and by what is known."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.coefficients: dict[str, float] = data["coefficients"]
        self.sizes: dict[str, list[float]] = data["sizes"]
        self.methods: frozenset[str] = frozenset(data["methods"])
        self.widths: dict[str, float] = data["widths"]
        self.baselines: dict[str, dict[str, dict[str, float]]] = data["baselines"]
        self.tokens: dict[str, int] = data.get("tokens", {})
        self.accuracy: dict[str, list[float]] = data.get("accuracy", {})
        self._anchors: dict[str, dict[str, list[Any]]] = data["anchors"]
        self._places: dict[Query, Place] = {}

    def known_size(self, family: str, params_b: float) -> float | None:
        """The size that the tables print for this model; None where they have none like it."""
        sizes = self.sizes.get(family, [])
        best = min(sizes, key=lambda s: abs(math.log(s / params_b)), default=None) if params_b > 0 else None
        return best if best is not None and abs(math.log(best / params_b)) <= SAME_SIZE else None

    def resolved(self, q: Query) -> Query:
        """The question with its model's key, where the fit knows the model."""
        size = self.known_size(q.family, q.params_b)
        return q if size is None else q._replace(params_b=size, model_key=f"{q.family}-{size:g}")

    def anchors(self, q: Query) -> list[Anchor]:
        """Published cells of this very model and method."""
        raw = self._anchors.get(q.model_key, {}).get(anchor_key(q), [])
        return [Anchor(tuple(at), z, n, spread) for at, z, n, spread in raw]

    def exponent(self, q: Query) -> float:
        """log E in nats, before the hurdle; -inf at 16 bits throughout."""
        parts = (weight_features(q), activation_features(q), kv_features(q))
        total = -math.inf
        for features in parts:
            if features is not None:
                total = log_sum(total, self._dot(features))
        return total

    def _dot(self, features: Features) -> float:
        known = self.coefficients
        return sum(known[name] * value for name, value in features.items() if name in known)

    def place(self, q: Query) -> Place:
        """Centre and width for a resolved question that quantizes something; remembered."""
        if q not in self._places:
            if len(self._places) > REMEMBERED:
                self._places.clear()
            self._places[q] = self._clipped(q, self._free(q))
        return self._places[q]

    def _free(self, q: Query) -> Place:
        """Before q's own anchors: a quantized cache, then symmetry, are added to the answer without them."""
        if q.kv_bits < 16 and min(q.bits, q.act_bits) < 16:
            return self._with_cache(self.place(q._replace(kv_bits=16)), q)
        if q.symmetric and q.bits < 16:
            inner = self.place(q._replace(symmetric=False))
            z = of_exponent(to_exponent(inner.z) + self.coefficients.get("w:symmetric", 0.0))
            width = math.hypot(inner.width, SYMMETRY_WIDTH)
            return inner._replace(z=max(z, inner.z), width=width, own_width=min(width, inner.own_width))
        knowledge = self._knowledge(q)
        width = self._width(q, knowledge)
        z = of_exponent(self._bounded_exponent(q))
        return Place(z, width, min(width, self._width(q, "model")), knowledge, False)

    def _bounded_exponent(self, q: Query) -> float:
        """The exponent, kept from an extrapolation in which calibration hurts."""
        found = self.exponent(q)
        if q.model_key or METHOD_CLASS.get(q.method, PLAIN) == PLAIN or q.act_bits < 16 or q.bits >= 6:
            return found
        return min(found, self.exponent(q._replace(method="rtn")) + math.log(CALIBRATED_SHARE))

    def _with_cache(self, inner: Place, q: Query) -> Place:
        """The cache's loss added; where it is a small part of the sum, the width stays the inner one."""
        features = kv_features(q)
        cache, rest = self._dot(features) if features else -math.inf, to_exponent(inner.z)
        z = max(of_exponent(log_sum(cache, rest)), inner.z)
        if cache - rest < math.log(SMALL_PART):
            return inner._replace(z=z)
        width = max(inner.width, self._width(q, self._knowledge(q)))
        return inner._replace(z=z, width=width, own_width=width, knowledge=self._knowledge(q), anchored=False)

    def _clipped(self, q: Query, free: Place) -> Place:
        """Not under the published cells that are finer, not over those that are coarser; on those that are equal."""
        found, at, z = self.anchors(q), coordinates(q), free.z
        z = max([z, *(a.z for a in found if not_coarser(a.at, at))])
        z = min([z, *(a.z for a in found if not_coarser(at, a.at))])
        here = next((a for a in found if a.at == at), None)
        if here is None:
            return free._replace(z=z)
        width = max(self._width(q, "anchor"), here.spread)
        return Place(z, width, min(width, self._width(q, "model")), "anchor", True)

    def _knowledge(self, q: Query) -> str:
        if q.model_key:
            return "model"
        return "family" if q.family in self.sizes else "none"

    def _width(self, q: Query, knowledge: str) -> float:
        grouped = q.act_group is not None and q.act_bits < 16  # no published row has activation groups
        unseen = self.widths["unseen method"] if grouped or q.method not in self.methods else 0.0
        return math.exp(self.widths[regime(q)] + self.widths[knowledge] + unseen)

    def support(self, q: Query) -> int:
        """Published cells near by, each counted once a group of linked sources; 0 = no evidence.

        Near: same family and method, sizes within a factor of 4, weight bits within 0.5, equal activation
        bits, and the cache under 8 bits in both or in neither.
        """
        total, kind = 0, anchor_key(q)
        for size in self.sizes.get(q.family, []):
            if q.params_b <= 0 or abs(math.log(size / q.params_b)) > NEAR_SIZE:
                continue
            for key, found in self._anchors.get(f"{q.family}-{size:g}", {}).items():
                if key == kind:
                    total += sum(n for at, _, n, _ in found if _near(at, q))
        return total


def _near(at: list[float], q: Query) -> bool:
    same_cache = (at[6] <= -8) == (q.kv_bits >= 8)  # an 8-bit cache is nearly free: lmdeploy's tables
    same_groups = q.act_bits >= 16 or at[4] == octaves(q.act_group)
    return abs(-at[0] - q.bits) <= NEAR_BITS and -at[3] == q.act_bits and same_cache and same_groups


@lru_cache(maxsize=1)
def shipped() -> PredictionModel:
    """The model that ships with the package, read once."""
    return PredictionModel(json.loads(FILE.read_text(encoding="utf-8")))
