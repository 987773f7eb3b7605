"""The advisor's objects in the words that rules speak."""

from __future__ import annotations

from typing import Any, cast

from quantrecipe.advisor.candidates import Way
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.model import ModelSpec
from quantrecipe.rules.evidence_names import normalise_family
from quantrecipe.rules.facts import (
    BudgetFacts,
    CandidateFacts,
    EngineFacts,
    HardwareFacts,
    ModelFacts,
    release_number,
)


def evidence_family(model: ModelSpec) -> str:
    """The family's name in the evidence."""
    return normalise_family(model.family, model.id)


def tokens_per_parameter(model: ModelSpec) -> float | None:
    """Training tokens a parameter, where published."""
    return model.training_tokens / model.parameters if model.training_tokens else None


def model_facts(model: ModelSpec) -> ModelFacts:
    """What rules may know of the model."""
    return ModelFacts(
        id=model.id, family=evidence_family(model), parameters=model.parameters, layers=model.layers,
        hidden_size=model.hidden, tied_embeddings=model.tied, is_moe=model.is_moe, attention=model.kv.kind,
        norm=model.norm, activation=model.activation, training_tokens_per_parameter=tokens_per_parameter(model),
    )  # fmt: skip


def budget_facts(asked: Constraints) -> BudgetFacts:
    """What rules may know of the budget."""
    return BudgetFacts(asked.memory, asked.context, asked.batch, asked.gpus, asked.objective)


def hardware_facts(asked: Constraints) -> HardwareFacts:
    """What rules may know of the device."""
    device = asked.device
    if device is None:
        return HardwareFacts()
    vendor, architecture = cast(Any, device.vendor), cast(Any, device.architecture)
    return HardwareFacts(device.name, vendor, architecture, device.compute_capability, device.memory, device.fp8)


def engine_facts(asked: Constraints) -> EngineFacts:
    """What rules may know of the engine: the release whose documentation was read."""
    engine = asked.engine
    if engine is None:
        return EngineFacts()
    return EngineFacts(cast(Any, engine.name), engine.version, release_number(engine.version))


def candidate_facts(way: Way, kv_bits: int, kv_type: str, bits_per_weight: float) -> CandidateFacts:
    """What rules may know of a candidate."""
    scheme = way.scheme
    return CandidateFacts(
        scheme=scheme.name, method=way.method, weight_bits=scheme.bits, act_bits=scheme.act_bits,
        group_size=scheme.group, act_group_size=scheme.act_group, symmetric=scheme.symmetric,
        type=cast(Any, scheme.type), act_type=cast(Any, scheme.act_type), kv_bits=kv_bits,
        kv_type=cast(Any, kv_type), act_order=way.act_order, bits_per_weight=bits_per_weight, format=way.format,
        double_quantized=scheme.double_quantized, compensation=cast(Any, way.compensation or "none"),
    )  # fmt: skip
