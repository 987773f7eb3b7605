"""Models on one scale of absolute quality, where published numbers allow it; where not, that is said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from quantrecipe.advisor.facts import evidence_family
from quantrecipe.model import ModelSpec

if TYPE_CHECKING:
    from quantrecipe.rules.prediction_baseline import Member


class Scale(NamedTuple):
    """``offsets``: nats above the best 16-bit model by model id; ``rates``: by which a model's own loss counts.

    unlike: models that cannot be compared with these. by_bytes: whether bits a byte were compared.
    """

    offsets: dict[str, float]
    rates: dict[str, float]
    unlike: tuple[ModelSpec, ...] = ()
    by_bytes: bool = False


def scale_of(models: Sequence[ModelSpec], anchor: ModelSpec) -> Scale:
    """A scale of ``anchor`` and of those models that published numbers make comparable with it."""
    alike = [anchor, *(one for one in models if one.id != anchor.id and _comparable(anchor, one))]
    found = _standings(alike)
    if found is None:  # each is comparable with the anchor, but not all at once: keep to its tokenizer
        alike = [one for one in alike if one.tokenizer == anchor.tokenizer and one.family == anchor.family]
        found = _standings(alike) or [(0.0, 1.0)] * len(alike)
    names = {one.id for one in alike}
    best = min(nats for nats, _ in found)
    return Scale(
        {one.id: nats - best for one, (nats, _) in zip(alike, found, strict=True)},
        {one.id: rate for one, (_, rate) in zip(alike, found, strict=True)},
        tuple(one for one in models if one.id not in names),
        len({one.tokenizer for one in alike}) > 1,
    )


def _comparable(one: ModelSpec, other: ModelSpec) -> bool:
    return _standings([one, other]) is not None


def _standings(models: Sequence[ModelSpec]) -> list[tuple[float, float]] | None:
    from quantrecipe.rules.prediction_baseline import standings
    from quantrecipe.rules.prediction_model import shipped

    found = standings(shipped(), [_member(model) for model in models])
    return [(one.nats, one.rate) for one in found] if found else None


def _member(model: ModelSpec) -> Member:
    from quantrecipe.rules.prediction_baseline import Member

    size = model.parameters / 1e9
    return Member(evidence_family(model), size, model.tokenizer or model.family, size * math.sqrt(_active(model)))


def _active(model: ModelSpec) -> float:
    """Share of the parameters that a token visits. Estimates go by the geometric mean of all and active ones.

    Mixtral-8x7B, 46.7 and 12.9 billion, counts as 24.5: LLaMA 1's line (4.10 at 30B, 5.09 at 13B on WikiText2)
    gives 4.35 there, its published perplexity is 3.84; counted as 46.7 or as 12.9 it would be 3.8 or 5.1.
    """
    experts = sum(m.parameters for m in model.matrices if m.group == "experts")
    idle = experts * (1 - model.active_experts / model.experts) if model.experts and model.active_experts else 0
    return 1 - idle / model.parameters
