"""What quantizing costs in accuracy: the share of what a model scores above guessing that is lost.

It rests on published accuracy tables and on the predicted loss of perplexity E (nats), of which it is a function:

    u = 1 - exp(-k E^power),    quantile p of u:  E's own quantile, stretched, plus the tasks' noise

with k and the noise by kind of task, fitted to quantiles (tools/accuracy_fit.py). Coverage: docs/prediction.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from quantrecipe.errors import QuantRecipeError, did_you_mean
from quantrecipe.rules.evidence_row import EvidenceRow
from quantrecipe.rules.prediction import Prediction
from quantrecipe.rules.prediction_features import Query
from quantrecipe.rules.prediction_model import NEAR_BITS, NEAR_SIZE, SAME_SIZE, PredictionModel
from quantrecipe.rules.prediction_rows import method_distance, nearest_rows, rows
from quantrecipe.rules.prediction_scale import logistic_quantile, to_loss
from quantrecipe.rules.quantiles import Quantiles

#: metric of an answer -> what it means.
METRICS = {
    "accuracy": "zero-shot multiple choice",
    "lambada": "LAMBADA and other tasks that cannot be guessed",
    "mmlu": "MMLU and other examinations",
}
LEAST_LOSS = 1e-5  # nats: a predicted gain of perplexity counts as no loss
LEAST_SCORE = 5.0  # points above guessing under which a 16-bit score says nothing

# Printed metric -> (metric of an answer, percent by guessing; of a mean the mean of its tasks').
TASKS: dict[str, tuple[str, float]] = {
    "acc_piqa": ("accuracy", 50), "acc_norm_piqa": ("accuracy", 50), "acc_arc_easy": ("accuracy", 25),
    "acc_arc_challenge": ("accuracy", 25), "acc_storycloze": ("accuracy", 50), "acc_hellaswag": ("accuracy", 25),
    "acc_norm_hellaswag": ("accuracy", 25), "acc_winogrande": ("accuracy", 50), "acc_boolq": ("accuracy", 50),
    "acc_openbookqa": ("accuracy", 25), "acc_copa": ("accuracy", 50), "acc_rte": ("accuracy", 50),
    "csqa_avg5_acc": ("accuracy", 35), "zeroshot_avg6_acc": ("accuracy", 37.5), "acc_csqa0_avg": ("accuracy", 37.5),
    "acc_avg4_wino_hella_piqa_lambada": ("accuracy", 31.25), "acc_avg7": ("accuracy", 35.7),
    "acc_lambada": ("lambada", 0), "acc_lambada_openai": ("lambada", 0), "gsm8k": ("lambada", 0),
    "triviaqa": ("lambada", 0), "ifeval_strict": ("lambada", 0),
    "acc_mmlu": ("mmlu", 25), "acc_mmlu5": ("mmlu", 25), "mmlu": ("mmlu", 25), "ceval": ("mmlu", 25),
    "race-high": ("mmlu", 25), "race-middle": ("mmlu", 25), "acc_avg4_lambada_mmlu_mnli_qnli": ("mmlu", 27),
}  # fmt: skip


class Shape(NamedTuple):
    """The fitted curve of one kind of task."""

    log_k: float
    power: float
    stretch: float
    noise: float

    def lost(self, loss: float, quantile: float) -> float:
        """u where the perplexity's loss is ``loss`` nats, moved by the tasks' noise at a logistic quantile."""
        share = -math.expm1(-math.exp(self.log_k) * max(loss, LEAST_LOSS) ** self.power)
        return share + self.noise * quantile


def lost_share(row: EvidenceRow) -> float | None:
    """The published u of an accuracy row: 0 = as the 16-bit model, 1 = guessing; None where it says nothing."""
    if row.metric not in TASKS or row.baseline is None:
        return None
    scale = 100.0 if row.baseline <= 1 else 1.0
    above = scale * row.baseline - TASKS[row.metric][1]
    return scale * (row.baseline - row.value) / above if above >= LEAST_SCORE else None


class AccuracyPrediction(Quantiles):
    """An answer in accuracy: changes as fractions of the score above guessing; -0.01 = a hundredth of it lost.

    ``relative_increase`` (the median), ``low`` and ``high`` (80 % of what other papers would print) are negative
    for a loss, so that a larger number is better, unlike with perplexity.
    """

    def __init__(self, perplexity: Prediction, metric: str, model: PredictionModel) -> None:
        if metric not in METRICS:
            limit = ", ".join(("perplexity", *METRICS))
            raise QuantRecipeError("unknown metric", value=metric, limit=limit, remedy=did_you_mean(metric, METRICS))
        self.metric = metric
        self._perplexity = perplexity
        self._shape = Shape(*model.accuracy[metric])

    def __repr__(self) -> str:
        return (f"AccuracyPrediction({self.metric!r}, {self.relative_increase:.4g}, low={self.low:.4g}, "
                f"high={self.high:.4g}, support={self.support})")  # fmt: skip

    def quantile(self, p: float) -> float:
        """The change that another paper's number stays under with probability p (0 < p < 1)."""
        place, q = self._perplexity.place, logistic_quantile(1 - p)
        if place is None:
            return 0.0
        return -self._shape.lost(to_loss(place.z + self._shape.stretch * place.width * q), q)

    @property
    def support(self) -> int:
        """Cells of accuracy tables near by, as ``PredictionModel.support`` has it; 0 = no evidence."""
        near = (row for row in self._rows() if _near(row, self._perplexity.query))
        return len({(r.source, r.params_b, r.bits, r.group_size, r.kv_bits) for r in near})

    @property
    def nearest(self) -> tuple[EvidenceRow, ...]:
        """Up to five accuracy rows closest to the question."""
        return nearest_rows(self._perplexity.query, of=self._counts)

    @property
    def baseline(self) -> float | None:
        """Mean published 16-bit score of this very model over this kind of task, in percent; None without any."""
        size = self._perplexity.query.params_b
        same = [r for r in self._rows() if abs(math.log(r.params_b / size)) <= SAME_SIZE and r.baseline]
        scores = {r.metric: (100 if r.baseline <= 1 else 1) * r.baseline for r in same if r.baseline}
        return round(sum(scores.values()) / len(scores), 2) if scores else None

    @property
    def note(self) -> str:
        """One line on what the answer rests on."""
        if self._perplexity.place is None:
            return "nothing is quantized: zero by definition"
        rest = f"{METRICS[self.metric]}; a function of the predicted perplexity"
        return rest if self.support else f"no evidence: {rest}"

    def _counts(self, row: EvidenceRow) -> bool:
        return TASKS.get(row.metric, ("", 0))[0] == self.metric and lost_share(row) is not None

    def _rows(self) -> Iterable[EvidenceRow]:
        return (row for row in rows(self._perplexity.query.family) if self._counts(row))


def _near(row: EvidenceRow, q: Query) -> bool:
    """Same method, sizes within a factor of 4, bits within 0.5, equal activation bits, caches of one class."""
    sizes = abs(math.log(max(row.params_b, 1e-3) / max(q.params_b, 1e-3)))
    same_cache = (row.kv_bits >= 8) == (q.kv_bits >= 8)
    return (
        method_distance(row.method, q.method) == 0
        and sizes <= NEAR_SIZE
        and abs(row.bits - q.bits) <= NEAR_BITS
        and row.act_bits == q.act_bits
        and (q.act_bits >= 16 or not q.act_group)
        and same_cache
    )
