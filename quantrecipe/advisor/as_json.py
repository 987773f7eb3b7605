"""The answer as JSON: stable names, schema in docs/advice.schema.json."""

from __future__ import annotations

from typing import Any

from quantrecipe.advisor.advice import Advice
from quantrecipe.advisor.candidate import Candidate
from quantrecipe.advisor.constraints import UNLIMITED, Constraints
from quantrecipe.advisor.evidence import in_accuracy
from quantrecipe.memory import MemoryEstimate

MEMORY_FIELDS = (
    "file_bytes", "weights_bytes", "kv_cache_bytes", "activations_bytes", "overhead_bytes", "total_bytes",
    "uncertainty_bytes", "groups",
)  # fmt: skip


def memory_json(memory: MemoryEstimate) -> dict[str, Any]:
    """The lines of a memory estimate, in bytes."""
    return {name: getattr(memory, name) for name in MEMORY_FIELDS}


def candidate_json(one: Candidate, recipe: dict[str, Any] | None) -> dict[str, Any]:
    """One candidate; an alternative carries no recipe."""
    return {
        "model": one.model.id,
        "scheme": one.way.scheme.name,
        "recipe": recipe,
        "backend": one.backend,
        "method": one.way.method,
        "act_order": one.way.act_order,
        "format": one.way.format,
        "kv_bits": one.kv_bits,
        "embedding_bits": one.way.embedding_bits,
        "compensation": one.way.compensation or None,
        "memory": memory_json(one.memory),
        "quality": one.prediction.to_json() if one.prediction else None,
        "accuracy": in_accuracy(one.prediction).to_json() if one.prediction and recipe else None,
        "bits_per_weight": round(one.memory.bits_per_weight, 4),
        "verdict": one.verdict,
    }


def budget_json(asked: Constraints) -> dict[str, Any]:
    """The question."""
    return {
        "memory_bytes": None if asked.memory >= UNLIMITED else asked.memory,
        "context": asked.context,
        "batch": asked.batch,
        "hardware": asked.device.name if asked.device else None,
        "gpus": asked.gpus,
        "engine": asked.engine.name if asked.engine else None,
        "objective": asked.objective,
        "max_loss": asked.max_loss,
        "offload_bytes": asked.offload,
    }


def advice_json(advice: Advice) -> dict[str, Any]:
    """The whole answer."""
    chosen = advice.recommended
    model = chosen.model if chosen else advice.model
    return {
        "model": {"id": model.id, "family": model.family, "parameters": model.parameters},
        "budget": budget_json(advice.asked),
        "recommended": candidate_json(chosen, advice.recipe_data) if chosen else None,
        "reasons": [rule.reason() for rule in advice.reasons],
        "alternatives": [
            {**candidate_json(one, None), "rejected_because": one.rejected[0].text} for one in advice.alternatives
        ],
        "frontier": [
            {"model": c.model.id, "scheme": c.way.scheme.name, "method": c.way.method, "kv_bits": c.kv_bits,
             "total_bytes": c.memory.total_bytes, "relative_increase": c.loss}
            for c in advice.frontier
        ],
        "conflicts": [one.line() for one in advice.conflicts],
        "warnings": list(advice.warnings),
        "counter_offers": [
            {"change": o.change, "candidate": o.candidate, "total_bytes": o.total_bytes} for o in advice.offers
        ],
    }  # fmt: skip
