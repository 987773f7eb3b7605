"""Published 16-bit perplexities, and estimates between them, for comparing the siblings of one family.

Perplexities of different tokenizers are never compared: every value comes with its family and data set.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from quantrecipe.rules.prediction_model import PredictionModel

PREFERRED = ("ppl_wiki2", "ppl_mean", "ppl_c4", "ppl_unnamed")


class AbsoluteQuality(NamedTuple):
    """A perplexity on one data set for one family's tokenizer; ``published``: its baseline was printed."""

    family: str
    metric: str
    perplexity: float
    published: bool


def published(model: PredictionModel, family: str, params_b: float) -> tuple[str, float] | None:
    """(metric, perplexity) of this very model at 16 bits."""
    size = model.known_size(family, params_b)
    known = model.baselines.get(family, {}).get(f"{size:g}", {}) if size is not None else {}
    return next(((metric, known[metric]) for metric in PREFERRED if metric in known), None)


def absolute(model: PredictionModel, family: str, params_b: float, increase: float) -> AbsoluteQuality | None:
    """Baseline x (1 + increase); the baseline is interpolated in log-log among the family's sizes if need be."""
    for metric in PREFERRED:
        sizes = {float(s): v[metric] for s, v in model.baselines.get(family, {}).items() if metric in v}
        exact = model.known_size(family, params_b)
        if exact in sizes:
            return AbsoluteQuality(family, metric, sizes[exact] * (1 + increase), True)
        if len(sizes) > 1 and params_b > 0:
            return AbsoluteQuality(family, metric, _between(sizes, params_b) * (1 + increase), False)
    return None


def _between(sizes: dict[float, float], params_b: float) -> float:
    """Log-log line through the two published sizes around (or at the end nearest to) the asked one."""
    known = sorted(sizes)
    upper = next((i for i, s in enumerate(known) if s >= params_b), len(known) - 1)
    low, high = known[max(upper, 1) - 1], known[max(upper, 1)]
    slope = math.log(sizes[high] / sizes[low]) / math.log(high / low)
    return math.exp(math.log(sizes[low]) + slope * math.log(params_b / low))
