"""Predicted quality: the questions that the advisor puts to the model of published results."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from quantrecipe.advisor.facts import evidence_family, tokens_per_parameter
from quantrecipe.model import ModelSpec
from quantrecipe.scheme_facts import SchemeFacts

if TYPE_CHECKING:
    from quantrecipe.rules.prediction import Prediction


# Where no baseline of a family was published: perplexity falls as parameters to this power. Between the smallest
# and largest member, WikiText2 in 16 bits (gptq.csv, table 3 and README): OPT 125M-66B 0.17, BLOOM 560M-176B 0.18,
# LLaMA 7B-65B 0.21.
SIZE_EXPONENT = 0.18


def predict_quality(
    model: str | ModelSpec, scheme: str | SchemeFacts, method: str, kv_bits: int = 16, act_order: bool | None = None
) -> Prediction:
    """The relative increase of perplexity to expect, with its 80 % interval.

    An unknown combination answers with support 0 and a wide interval; it does not raise. Raises
    QuantRecipeError for a model or scheme that is unknown.
    """
    from quantrecipe.catalog.resolve import resolve_model
    from quantrecipe.scheme_facts import scheme_facts

    spec = resolve_model(model) if isinstance(model, str) else model
    facts = scheme_facts(scheme) if isinstance(scheme, str) else scheme
    return predicted(spec, facts, method, kv_bits, act_order)


def predicted(model: ModelSpec, scheme: SchemeFacts, method: str, kv_bits: int, act_order: bool | None) -> Prediction:
    """One question to the model of published results, which keeps its answers."""
    from quantrecipe.rules.prediction import predict

    return predict(
        family=evidence_family(model), params=model.parameters, weight_bits=scheme.bits,
        group_size=scheme.group or None, symmetric=scheme.symmetric, weight_type=_number_type(scheme.type),
        act_bits=scheme.act_bits, act_group=scheme.act_group or None, act_type=_number_type(scheme.act_type),
        kv_bits=kv_bits, method=method, act_order=act_order, tokens_per_parameter=tokens_per_parameter(model),
    )  # fmt: skip


def _number_type(name: str) -> str:
    """The evidence knows int and float; code books stand under their methods' names."""
    return "float" if name == "float" else "int"


def log_baseline(model: ModelSpec) -> float:
    """Log perplexity of the unquantized model, comparable within its family only."""
    from quantrecipe.rules.prediction import absolute_quality, predict

    name = evidence_family(model)
    nothing = predict(family=name, params=model.parameters)
    found = absolute_quality(nothing, name, model.parameters)
    if found is not None:
        return math.log(found.perplexity)
    return -SIZE_EXPONENT * math.log(model.parameters)
