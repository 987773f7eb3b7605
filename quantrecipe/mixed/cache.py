"""The KV cache as one more unit of a mix: its bits, its bytes, and what they are predicted to lose."""

from __future__ import annotations

from math import log1p
from typing import NamedTuple

from quantrecipe.advisor import engine as engines
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.advisor.evidence import predicted
from quantrecipe.memory import kv_cache_bytes
from quantrecipe.model import ModelSpec
from quantrecipe.scheme_facts import scheme_facts

UNIT = "kv_cache"


class Cache(NamedTuple):
    """bits and number type; bytes at the question's context and batch; loss in nats a token."""

    bits: int
    type: str
    nbytes: int
    loss: float


def caches(spec: ModelSpec, asked: Constraints) -> tuple[Cache, ...]:
    """What the engine (vLLM where none is named) can hold, 16 bits first."""
    found = [Cache(16, "none", kv_cache_bytes(spec, asked.serving(16)), 0.0)]
    architecture = asked.device.architecture if asked.device else None
    for bits in asked.program.cache_bits:
        entry = asked.program.cache(bits) or {}
        if not (entry.get("gpu_only") and architecture in engines.CPUS):
            kind = engines.kv_type(asked.program, bits)
            found.append(Cache(bits, kind, kv_cache_bytes(spec, asked.serving(bits)), _predicted(spec, bits)))
    return tuple(found)


def _predicted(spec: ModelSpec, bits: int) -> float:
    """By published results (rules/prediction.py): the rise of log perplexity beside 8-bit weights."""
    losses = [
        predicted(spec, scheme_facts("w8a16"), "rtn", kv_bits, None).relative_increase for kv_bits in (bits, 16)
    ]
    return max(log1p(losses[0]) - log1p(losses[1]), 0.0)
