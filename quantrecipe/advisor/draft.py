"""The recommended recipe as plain data, in the order and words of quantrecipe.recipe.Recipe.

It is made without pydantic, so that a command that only prints starts fast; tests validate every kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from quantrecipe.advisor.backend import caches, takes_pipeline
from quantrecipe.advisor.candidate import Candidate
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.advisor.launch import launch_line
from quantrecipe.advisor.tables import Engine
from quantrecipe.model import ModelSpec
from quantrecipe.rules.rule import Rule
from quantrecipe.scheme_facts import SchemeFacts

OUTPUT = "out"
SMALL = 50_000_000  # parameters under which calibration and evaluation are cut to what takes seconds
_REASONS = 6
LEAST_GATE = 1.0  # percent of perplexity: a tighter gate would measure noise


def draft_recipe(one: Candidate, asked: Constraints, reasons: Sequence[Rule]) -> dict[str, Any]:
    """The recipe of a candidate; every part filled in."""
    return {
        "version": 1,
        "model": {"id": one.model.hub_id or one.model.id},
        "target": target_args(asked),
        "quantization": _quantization(one, asked.program),
        "calibration": calibration_args(one.model),
        "evaluation": evaluation_args(one.model),
        "gates": _gates(one),
        "output": {"path": OUTPUT, "report": f"{OUTPUT}/report.md"},
        "expected": _expected(one),
        "launch": launch_line(one, asked, OUTPUT),
        "because": [_because(rule) for rule in reasons[:_REASONS]],
    }


def target_args(asked: Constraints) -> dict[str, Any]:
    """What the advice is for."""
    target: dict[str, Any] = {"memory": asked.size_text} if asked.size_text else {}
    if asked.device:
        target["hardware"] = {"name": asked.device.name, "count": asked.gpus}
    target |= {"context": asked.context, "batch": asked.batch}
    return target | ({"engine": asked.engine.name} if asked.engine else {})


def _quantization(one: Candidate, engine: Engine) -> dict[str, Any]:
    way, backend = one.way, one.backend or "native"
    group: dict[str, Any] = {"targets": ["Linear"], "weights": weight_args(way.scheme)}
    inputs = activation_args(way.scheme)
    if inputs:
        group["input_activations"] = inputs
    whole = takes_pipeline(backend, way.method)
    group["method"] = method_args(way.method if whole else way.pipeline.rounding)
    groups = {"main": group}
    if way.embedding_bits < 16:
        weights = {"num_bits": way.embedding_bits, "type": "int", "symmetric": True, "strategy": "channel"}
        groups["embedding"] = {"targets": ["Embedding"], "weights": weights, "method": {"name": "rtn"}}
    parts: dict[str, Any] = {"backend": backend, "format": way.format, "config_groups": groups}
    parts["ignore"] = ["lm_head", *outside(one.model)]
    if cache_scales(one, engine):
        parts["kv_cache_scheme"] = cache_args(one)
    if not whole and way.pipeline.transforms:
        parts["transforms"] = [{"name": name} for name in way.pipeline.transforms]
    if way.compensation:
        parts["compensation"] = {"name": way.compensation, "rank": way.rank}
    return parts


def cache_scales(one: Candidate, engine: Engine) -> bool:
    """Whether the checkpoint carries scales of the KV cache: the engine reads them and the backend finds them.

    Per-token scales are found while serving, so that only fp8 has any to carry.
    """
    carried = engine.kv_scales and one.way.format == "compressed-tensors" and one.kv_type == "float"
    return one.kv_bits < 16 and carried and caches(one.backend, one.kv_type, one.kv_bits)


def cache_args(one: Candidate) -> dict[str, Any]:
    """The cache's QuantizationArgs: one scale a tensor, found on calibration text."""
    return {"num_bits": one.kv_bits, "type": one.kv_type, "symmetric": True, "strategy": "tensor", "dynamic": False}


def outside(model: ModelSpec) -> list[str]:
    """Linear layers beside the decoder blocks, by name: they stay as they are."""
    return [m.name for m in model.matrices if m.group == "embeddings" and "project" in m.name]


def weight_args(scheme: SchemeFacts) -> dict[str, Any]:
    """The weights' QuantizationArgs."""
    args: dict[str, Any] = {"num_bits": scheme.bits, "type": scheme.type, "symmetric": scheme.symmetric}
    args |= {"strategy": "group", "group_size": scheme.group} if scheme.group else {"strategy": "channel"}
    return args | ({"scale": {"num_bits": 8, "group_size": 256}} if scheme.double_quantized else {})


def activation_args(scheme: SchemeFacts) -> dict[str, Any] | None:
    """The inputs' QuantizationArgs: dynamic, per token unless grouped; None at 16 bits."""
    if scheme.act_bits == 16:
        return None
    args: dict[str, Any] = {"num_bits": scheme.act_bits, "type": scheme.act_type}
    args |= {"strategy": "group", "group_size": scheme.act_group} if scheme.act_group else {"strategy": "token"}
    return args | {"dynamic": True}


def method_args(name: str) -> dict[str, Any]:
    """A method with its options written out (GPTQ: the paper's damping and block, act-order in place)."""
    if name == "gptq":
        return {"name": "gptq", "dampening_frac": 0.01, "actorder": "static", "block_size": 128}
    return {"name": name}


def calibration_args(model: ModelSpec) -> dict[str, Any]:
    """128 x 2048 tokens as the GPTQ paper takes, no longer than the model can read."""
    samples, length = (32, 256) if model.parameters < SMALL else (128, 2048)
    return {"dataset": "builtin", "samples": samples, "sequence_length": min(length, model.context), "seed": 0}


def evaluation_args(model: ModelSpec) -> dict[str, Any]:
    """Perplexity and KL over a few windows, no longer than the model can read."""
    length, windows = (256, 32) if model.parameters < SMALL else (2048, 40)
    perplexity = {"dataset": "builtin", "sequence_length": min(length, model.context), "windows": windows}
    return {"perplexity": perplexity, "divergence": True, "tasks": []}


def _gates(one: Candidate) -> dict[str, Any]:
    """The upper end of the prediction as the limit of loss, and the file's size with 1 % to spare."""
    size = {"max_size": f"{math.ceil(one.memory.file_bytes * 1.01 / 1e6)}MB"}
    if one.prediction is None or not math.isfinite(one.prediction.high):
        return size
    limit = max(math.ceil(one.prediction.high * 1000) / 10, LEAST_GATE)
    return {"max_perplexity_increase": f"{limit:g}%", **size}


def _expected(one: Candidate) -> dict[str, Any]:
    memory = one.memory
    expected: dict[str, Any] = {
        "file_bytes": memory.file_bytes,
        "resident_bytes": memory.weights_bytes,
        "peak_memory": memory.total_bytes,
    }
    guess = one.prediction
    if guess is None:
        return expected
    loss = {
        "metric": "perplexity", "relative_increase": round(guess.relative_increase, 5), "low": round(guess.low, 5),
        "high": round(guess.high, 5), "support": int(guess.support),
    }  # fmt: skip
    return {**expected, "loss": loss}


def _because(rule: Rule) -> dict[str, Any]:
    entry = {"rule": rule.id, "finding": rule.finding, "source": rule.source}
    return {**entry, "evidence": rule.rows[0]} if rule.rows else entry
