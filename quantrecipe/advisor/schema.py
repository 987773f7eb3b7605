"""The JSON schema of ``qadvise --format json``; published as docs/advice.schema.json."""

from __future__ import annotations

from typing import Any

from quantrecipe.advisor.as_json import MEMORY_FIELDS
from quantrecipe.advisor.constraints import OBJECTIVES

Schema = dict[str, Any]
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_RECIPE: Schema = {"type": "object", "description": "a recipe: recipe.schema.json"}
_BITS: Schema = {"enum": [16, 8, 4]}


def _object(**properties: Schema) -> Schema:
    """An object with exactly these keys."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _memory() -> Schema:
    lines = {name: _COUNT for name in MEMORY_FIELDS if name != "groups"}
    return _object(**lines, groups={"type": "object", "additionalProperties": _COUNT})


def _quality() -> Schema:
    """Also carries what the prediction adds, such as its note."""
    known = _object(
        metric=_TEXT, baseline=_or_null(_NUMBER), relative_increase=_NUMBER, low=_NUMBER, high=_NUMBER,
        support=_COUNT, evidence=_list({"type": "object"}),
    )  # fmt: skip
    return {**known, "additionalProperties": True}


def _candidate(**more: Schema) -> Schema:
    return _object(
        model=_TEXT, scheme=_TEXT, recipe=_or_null(_RECIPE), backend=_or_null(_TEXT),
        method=_TEXT, act_order={"type": "boolean"}, format=_TEXT, kv_bits=_BITS,
        embedding_bits=_BITS, compensation=_or_null(_TEXT), memory=_memory(),
        quality=_or_null(_quality()), accuracy=_or_null(_quality()), bits_per_weight=_NUMBER,
        verdict={"enum": ["fits", "edge", "does not fit"]},
        **more,
    )  # fmt: skip


def advice_schema() -> Schema:
    """Every key of the answer, typed; keys are never removed or given another meaning within version 1."""
    reason = _object(
        rule=_TEXT, effect={"enum": ["forbid", "require", "prefer", "note"]}, finding=_TEXT, source=_TEXT,
        evidence=_list(_TEXT),
    )  # fmt: skip
    budget = _object(
        memory_bytes=_or_null(_COUNT), context=_COUNT, batch=_COUNT, hardware=_or_null(_TEXT), gpus=_COUNT,
        engine=_or_null(_TEXT), objective={"enum": list(OBJECTIVES)}, max_loss=_or_null(_NUMBER),
        offload_bytes=_COUNT,
    )  # fmt: skip
    point = _object(
        model=_TEXT, scheme=_TEXT, method=_TEXT, kv_bits=_BITS, total_bytes=_COUNT, relative_increase=_NUMBER
    )
    whole = _object(
        model=_object(id=_TEXT, family=_TEXT, parameters=_COUNT), budget=budget, recommended=_or_null(_candidate()),
        reasons=_list(reason), alternatives=_list(_candidate(rejected_because=_TEXT)), frontier=_list(point),
        conflicts=_list(_TEXT), warnings=_list(_TEXT),
        counter_offers=_list(_object(change=_TEXT, candidate=_TEXT, total_bytes=_COUNT)),
    )  # fmt: skip
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "qadvise --format json", **whole}
