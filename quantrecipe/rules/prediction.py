"""What quantizing will cost: a relative increase of perplexity, with the interval another paper would print in.

The method, its equations, traps and checked coverage: docs/prediction.md. No array library, no table parsing.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from quantrecipe.rules import prediction_baseline as baselines
from quantrecipe.rules.evidence_names import normalise_family, normalise_method
from quantrecipe.rules.evidence_row import EFFECTIVE_BIT_METHODS, EvidenceRow
from quantrecipe.rules.prediction_features import Query
from quantrecipe.rules.prediction_model import Place, PredictionModel, shipped
from quantrecipe.rules.prediction_rows import conflicts, nearest_rows
from quantrecipe.rules.prediction_scale import COLLAPSE, logistic_quantile, to_latent, to_loss
from quantrecipe.rules.quantiles import Quantiles

if TYPE_CHECKING:
    from quantrecipe.rules.prediction_accuracy import AccuracyPrediction

SOURCE_WIDTH = 0.13  # logistic width of the sources' own effects: sd 0.23 in the fit x sqrt(3) / pi
# By judgement, not fitted: share of a model's own width that two schemes of one method do not have in common.
SAME_METHOD = 0.35


class Prediction(Quantiles):
    """An answer; immutable. Increases are fractions: 0.012 = +1.2 % perplexity."""

    __slots__ = ("_model", "_place", "_query", "metric")

    def __init__(self, query: Query, place: Place | None, model: PredictionModel) -> None:
        object.__setattr__(self, "metric", "perplexity")
        object.__setattr__(self, "_query", query)
        object.__setattr__(self, "_place", place)
        object.__setattr__(self, "_model", model)

    metric: str
    _query: Query
    _place: Place | None
    _model: PredictionModel

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"Prediction is immutable: cannot set {name!r}")

    def __repr__(self) -> str:
        return (f"Prediction(relative_increase={self.relative_increase:.4g}, low={self.low:.4g}, "
                f"high={self.high:.4g}, support={self.support})")  # fmt: skip

    @property
    def query(self) -> Query:
        """The question, as the fit understood it."""
        return self._query

    @property
    def place(self) -> Place | None:
        """The answer on the latent scale; None where nothing is quantized."""
        return self._place

    def quantile(self, p: float) -> float:
        """The increase that another paper's number stays under with probability p (0 < p < 1)."""
        if self._place is None:
            return 0.0
        return math.expm1(to_loss(self._place.z + self._place.width * logistic_quantile(p)))

    @property
    def collapse_probability(self) -> float:
        """Chance that another paper would print a broken model: a loss above COLLAPSE (+65 % perplexity)."""
        if self._place is None:
            return 0.0
        return _logistic((self._place.z - to_latent(COLLAPSE)) / self._place.width)

    @property
    def support(self) -> int:
        """Independent published cells near by (``PredictionModel.support``); 0 = no evidence."""
        return self._model.support(self._query) if self._place is not None else 0

    @property
    def nearest(self) -> tuple[EvidenceRow, ...]:
        """Up to five published rows closest to the question; the table is read on first use."""
        return nearest_rows(self._query)

    @property
    def baseline(self) -> float | None:
        """Published 16-bit perplexity of this very model on WikiText2 (or the first data set there is)."""
        found = baselines.published(self._model, self._query.family, self._query.params_b)
        return found[1] if found else None

    @property
    def exact(self) -> bool:
        """Whether this very model, scheme and method was published."""
        return self._place is not None and self._place.anchored

    @property
    def evidence_based(self) -> bool:
        """False where nothing near by was published: the answer is then a pooled guess."""
        return self._place is None or self.support > 0

    @property
    def note(self) -> str:
        """One line on what the answer rests on, and on sources that contradict it."""
        if self._place is None:
            return "nothing is quantized: zero by definition"
        rest = {"anchor": "this very model, scheme and method was published",
                "model": "this model was published with other schemes or methods",
                "family": "other sizes of this family were published",
                "none": "the family is unseen: pooled over all families"}[self._place.knowledge]  # fmt: skip
        prefix = "" if self.support else "no evidence: "
        against = conflicts(self._query, self.relative_increase)
        return prefix + rest + ("; contradicted by " + "; ".join(against) if against else "")

    def probability_better(self, other: Prediction) -> float:
        """Chance that this loses less quality than ``other``, errors that both share taken out.

        One model: losses are compared. Siblings with published baselines: absolute perplexities are.
        """
        if self._place is None or other._place is None:
            return 0.5 if self._place is other._place else float(self._place is None)
        siblings = self._query.params_b != other._query.params_b and self._query.family == other._query.family
        if siblings and self.baseline and other.baseline:
            return _better_absolute(self, other)
        width = math.hypot(_own(self, other), _own(other, self))
        return _logistic((other._place.z - self._place.z) / width)


def accuracy(prediction: Prediction, metric: str = "accuracy") -> AccuracyPrediction:
    """The same question answered in accuracy: ``accuracy``, ``lambada`` or ``mmlu``. Raises QuantRecipeError."""
    from quantrecipe.rules.prediction_accuracy import AccuracyPrediction

    return AccuracyPrediction(prediction, metric, shipped())


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-min(max(x, -40.0), 40.0)))


def _own(a: Prediction, b: Prediction) -> float:
    """The width of a's error that b does not share: without the source's, the model's, maybe the method's."""
    place, same = a._place, a._query[:2] == b._query[:2]
    width = place.own_width if place and same else place.width if place else 0.0
    free = math.sqrt(max(width**2 - SOURCE_WIDTH**2, (width / 2) ** 2))
    return free * SAME_METHOD if same and a._query.method == b._query.method else free


def _better_absolute(a: Prediction, b: Prediction) -> float:
    """Siblings: log(baseline) + loss, each with its own spread in nats (a logistic approximation)."""
    middle, spread = [], []
    for one, other in ((a, b), (b, a)):
        place, width = one._place, _own(one, other)
        if place is None or not one.baseline:
            return 0.5
        middle.append(math.log(one.baseline) + to_loss(place.z))
        spread.append((to_loss(place.z + width) - to_loss(place.z - width)) / 2)
    return _logistic((middle[1] - middle[0]) / max(math.hypot(*spread), 1e-6))


def predict(  # noqa: PLR0913 - the question has that many parts
    *, family: str, params: float, weight_bits: float = 16, effective_bits: float | None = None,
    group_size: int | None = None, symmetric: bool = True, act_bits: int = 16, act_group: int | None = None,
    kv_bits: int = 16, method: str = "rtn", act_order: bool | None = None,
    tokens_per_parameter: float | None = None, model: str = "", weight_type: str = "int", act_type: str = "int",
) -> Prediction:  # fmt: skip
    """The loss to expect.

    ``params``: a count (8e9), not billions. ``group_size`` None = one scale a row; ``act_group`` None = per token.
    ``weight_type``, ``act_type``: "int" or "float" (fp8, fp4). ``model`` names the
    family where ``family`` is vague ("llama"). Unknown names answer with support 0; they never raise.
    """
    name = normalise_method(method)
    mixed = name in EFFECTIVE_BIT_METHODS and effective_bits
    query = Query(
        family=normalise_family(family, model), params_b=_billions(params),
        bits=_sane(effective_bits if mixed and effective_bits else weight_bits, 16.0),
        group_size=group_size if group_size and group_size > 0 else None, symmetric=symmetric,
        act_bits=act_bits, act_group=act_group, kv_bits=kv_bits, method=name, act_order=act_order,
        tokens=tokens_per_parameter, weight_type=weight_type, act_type=act_type,
    )  # fmt: skip
    return _answer(query)


@lru_cache(maxsize=4096)
def _answer(query: Query) -> Prediction:
    fitted = shipped()
    query = fitted.resolved(query)
    quantized = min(query.bits, query.act_bits, query.kv_bits) < 16
    return Prediction(query, fitted.place(query) if quantized else None, fitted)


def _billions(params: float) -> float:
    return _sane(params, 7e9) / 1e9


def _sane(value: float, otherwise: float) -> float:
    return value if math.isfinite(value) and value > 0 else otherwise


def baseline_perplexity(family: str, params: float, model: str = "") -> tuple[str, float] | None:
    """(metric, published 16-bit perplexity) of this very model; None where no table prints it."""
    return baselines.published(shipped(), normalise_family(family, model), _billions(params))


def absolute_quality(
    prediction: Prediction, family: str, params: float, model: str = ""
) -> baselines.AbsoluteQuality | None:
    """Perplexity after quantization, comparable among siblings of one family only; None without a baseline."""
    name = normalise_family(family, model)
    return baselines.absolute(shipped(), name, _billions(params), prediction.relative_increase)
