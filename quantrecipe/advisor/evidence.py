"""Predicted quality: the questions that the advisor puts to the model of published results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from quantrecipe.advisor.facts import evidence_family, tokens_per_parameter
from quantrecipe.model import ModelSpec
from quantrecipe.scheme_facts import SchemeFacts

if TYPE_CHECKING:
    from quantrecipe.rules.prediction import Prediction
    from quantrecipe.rules.prediction_accuracy import AccuracyPrediction


@overload
def predict_quality(
    model: str | ModelSpec, scheme: str | SchemeFacts, method: str, kv_bits: int = 16, act_order: bool | None = None,
    *, metric: Literal["perplexity"] = "perplexity",
) -> Prediction: ...  # fmt: skip
@overload
def predict_quality(
    model: str | ModelSpec, scheme: str | SchemeFacts, method: str, kv_bits: int = 16, act_order: bool | None = None,
    *, metric: str,
) -> Prediction | AccuracyPrediction: ...  # fmt: skip
def predict_quality(  # noqa: PLR0913 - the question has that many parts
    model: str | ModelSpec, scheme: str | SchemeFacts, method: str, kv_bits: int = 16, act_order: bool | None = None,
    *, metric: str = "perplexity",
) -> Prediction | AccuracyPrediction:  # fmt: skip
    """The relative change to expect, with its 80 % interval: of perplexity, or of accuracy above guessing.

    metric: perplexity, accuracy (zero-shot choice), lambada or mmlu. An unknown combination answers with support 0
    and a wide interval; it does not raise. Raises QuantRecipeError for a model, scheme or metric that is unknown.
    """
    from quantrecipe.catalog.resolve import resolve_model
    from quantrecipe.scheme_facts import scheme_facts

    spec = resolve_model(model) if isinstance(model, str) else model
    facts = scheme_facts(scheme) if isinstance(scheme, str) else scheme
    guess = predicted(spec, facts, method, kv_bits, act_order)
    return guess if metric == "perplexity" else in_accuracy(guess, metric)


def in_accuracy(guess: Prediction, metric: str = "accuracy") -> AccuracyPrediction:
    """The same prediction in accuracy. Raises QuantRecipeError where the metric is unknown."""
    from quantrecipe.rules.prediction import accuracy

    return accuracy(guess, metric)


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
