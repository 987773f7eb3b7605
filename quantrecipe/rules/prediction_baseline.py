"""Published 16-bit perplexities, estimates between them, and what makes those of two tokenizers comparable.

A perplexity is a number a token: those of one tokenizer compare as they are, those of two as bits a byte of the
same text, for which the tokens that each makes of it must be known (wikitext2_tokens.csv).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from quantrecipe.rules.prediction_model import PredictionModel

PREFERRED = ("ppl_wiki2", "ppl_mean", "ppl_c4")
TEXT = "ppl_wiki2"  # the data set whose tokens are known
TEXT_BYTES = 1_290_590  # wiki.test.raw of WikiText-2: the unit of bits a byte, the same for all
# Where one baseline of a family was published, perplexity falls from it as parameters to this power; so it does
# where none was, from nowhere. Between the smallest and largest member, WikiText2 in 16 bits (gptq.csv, table 3 and
# README): OPT 125M-66B 0.17, BLOOM 560M-176B 0.18, LLaMA 7B-65B 0.21.
SIZE_EXPONENT = 0.18


class AbsoluteQuality(NamedTuple):
    """A perplexity on one data set for one family's tokenizer; ``published``: its baseline was printed."""

    family: str
    metric: str
    perplexity: float
    published: bool


class Member(NamedTuple):
    """A model as baselines know it: the evidence's family, billions of parameters, its tokenizer.

    effective_b: billions that estimates between sizes go by; fewer than all where a token visits few experts.
    """

    family: str
    params_b: float
    tokenizer: str
    effective_b: float


class Standing(NamedTuple):
    """A 16-bit model's place on a scale that it shares with others: nats a token of the first one's tokenizer.

    rate: tokens of the model's own over tokens of the reference's, by which a loss in nats counts.
    """

    nats: float
    rate: float
    published: bool


def published(model: PredictionModel, family: str, params_b: float) -> tuple[str, float] | None:
    """(metric, perplexity) of this very model at 16 bits."""
    known = _known(model, family, params_b)
    return next(((metric, known[metric]) for metric in PREFERRED if metric in known), None)


def _known(model: PredictionModel, family: str, params_b: float) -> dict[str, float]:
    size = model.known_size(family, params_b)
    return model.baselines.get(family, {}).get(f"{size:g}", {}) if size is not None else {}


def absolute(model: PredictionModel, family: str, params_b: float, increase: float) -> AbsoluteQuality | None:
    """Baseline x (1 + increase); the baseline is interpolated in log-log among the family's sizes if need be."""
    for metric in PREFERRED:
        found = on_metric(model, family, params_b, metric)
        if found:
            return found._replace(perplexity=found.perplexity * (1 + increase))
    return None


def on_metric(
    model: PredictionModel, family: str, params_b: float, metric: str, effective_b: float | None = None
) -> AbsoluteQuality | None:
    """The 16-bit perplexity on one data set, published or estimated from the family's other sizes."""
    exact = _known(model, family, params_b).get(metric)
    if exact is not None:
        return AbsoluteQuality(family, metric, exact, True)
    sizes = {float(s): v[metric] for s, v in model.baselines.get(family, {}).items() if metric in v}
    if not sizes or params_b <= 0:
        return None
    return AbsoluteQuality(family, metric, _between(sizes, effective_b or params_b), False)


def _between(sizes: dict[float, float], params_b: float) -> float:
    """Log-log line through the two published sizes around (or at the end nearest to) the asked one."""
    known = sorted(sizes)
    if len(known) == 1:
        return sizes[known[0]] * math.exp(-SIZE_EXPONENT * math.log(params_b / known[0]))
    upper = next((i for i, s in enumerate(known) if s >= params_b), len(known) - 1)
    low, high = known[max(upper, 1) - 1], known[max(upper, 1)]
    slope = math.log(sizes[high] / sizes[low]) / math.log(high / low)
    return math.exp(math.log(sizes[low]) + slope * math.log(params_b / low))


def standings(model: PredictionModel, members: Sequence[Member]) -> list[Standing] | None:
    """The members on one scale; None where nothing published lets them be compared.

    One tokenizer: perplexities on the data set that most of them have; where no table knows the family, the law of
    sizes alone. Several: bits a byte of WikiText-2, where each has a baseline on it and a known count of tokens.
    """
    if len({member.tokenizer for member in members}) > 1:
        return _by_bytes(model, members)
    for metric in sorted(PREFERRED, key=lambda m: -_count(model, members, m)):
        found = [on_metric(model, m.family, m.params_b, metric, m.effective_b) for m in members]
        if all(found):
            return [Standing(math.log(one.perplexity), 1.0, one.published) for one in found if one]
    if len({m.family for m in members}) > 1 or model.baselines.get(members[0].family):
        return None
    return [Standing(-SIZE_EXPONENT * math.log(m.effective_b), 1.0, False) for m in members]


def _count(model: PredictionModel, members: Sequence[Member], metric: str) -> int:
    return sum(metric in _known(model, m.family, m.params_b) for m in members)


def _by_bytes(model: PredictionModel, members: Sequence[Member]) -> list[Standing] | None:
    tokens = [model.tokens.get(member.tokenizer) for member in members]
    found = [on_metric(model, m.family, m.params_b, TEXT, m.effective_b) for m in members]
    if not all(tokens) or not all(found):
        return None
    reference = tokens[0] or 1
    return [
        Standing(math.log(one.perplexity) * (count or 1) / reference, (count or 1) / reference, one.published)
        for one, count in zip(found, tokens, strict=True) if one
    ]  # fmt: skip


def bits_per_byte(model: PredictionModel, member: Member) -> float | None:
    """Bits a byte of WikiText-2's test text at 16 bits: log2(perplexity) x tokens / bytes; None where unknown."""
    tokens = model.tokens.get(member.tokenizer)
    found = on_metric(model, member.family, member.params_b, TEXT, member.effective_b)
    return math.log2(found.perplexity) * tokens / TEXT_BYTES if tokens and found else None
