"""What the loss depends on: a question about one quantized model as three sums of named terms.

The loss in nats is E = exp(weights) + exp(activations) + exp(KV cache), each exponent a sum of coefficient x
feature; a part kept at 16 bits adds nothing. Fit (tools/) and answer (prediction.py) share these functions.
A feature that stands for bits or groups only grows with coarseness, and its coefficient is held >= 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from quantrecipe.rules.evidence_names import TRAINING_TOKENS_B

Features = dict[str, float]

PLAIN, SCALED, SOLVED, LEARNED = "plain", "scaled", "solved", "learned"
METHOD_CLASS = {
    "awq": SCALED, "gptq": SOLVED, "awq+gptq": SOLVED, "rptq": SOLVED, "zq-local": SOLVED, "zq-global": SOLVED,
    "lorc": SOLVED, "ptq-unnamed": SOLVED, "zeroquant-fp": SOLVED, "smoothquant+gptq": SOLVED,
    "omniquant": LEARNED, "spqr": LEARNED, "quip": LEARNED, "gguf": LEARNED, "gguf-imatrix": LEARNED,
    "gguf-legacy": PLAIN,
    "qoq": LEARNED, "quarot": LEARNED, "atom": LEARNED, "pb-llm": LEARNED, "db-llm": LEARNED, "billm": LEARNED,
}  # fmt: skip
WEIGHT_KNOTS = ((16, 8), (8, 6), (6, 5), (5, 4), (4, 3), (3, 2))
ACT_KNOTS = ((16, 8), (8, 6), (6, 4))
KV_KNOTS = ((16, 8), (8, 4), (4, 3))
FINEST, COARSEST = 8, 4096  # groups outside count as these; a whole row is COARSEST plus a step of its own
REFERENCE_PARAMS_B, REFERENCE_TOKENS = 7.0, 100.0
SMALLEST_B, LARGEST_B = 0.125, 180.0  # published sizes; models outside count as these, as no trend is known there


class Query(NamedTuple):
    """One question; ``params_b`` in billions, ``tokens`` = training tokens a parameter, bits as in EvidenceRow."""

    family: str
    params_b: float
    bits: float
    group_size: int | None
    symmetric: bool | None
    act_bits: int
    act_group: int | None
    kv_bits: int
    method: str
    act_order: bool | None = None
    tokens: float | None = None
    act_scope: str = ""
    weight_type: str = "int"
    act_type: str = "int"
    model_key: str = ""  # "family-size" where the fit knows this very model


def hinges(prefix: str, bits: float, knots: tuple[tuple[int, int], ...], out: Features) -> None:
    """One feature a stretch of bits: 0 above it, 1 below it; the last stretch goes on below its end."""
    for index, (high, low) in enumerate(knots):
        if bits >= high:
            return
        share = (high - bits) / (high - low)
        out[f"{prefix}{low}"] = share if index == len(knots) - 1 else min(share, 1.0)


def octaves(group_size: int | None) -> float:
    """log2 of the group over the finest one; a whole row counts as the coarsest."""
    size = COARSEST if not group_size or group_size < 0 else min(max(group_size, FINEST), COARSEST)
    return math.log2(size / FINEST)


def _size(params_b: float) -> float:
    return math.log(min(max(params_b, SMALLEST_B), LARGEST_B) / REFERENCE_PARAMS_B)


def tokens_per_parameter(family: str, params_b: float) -> float | None:
    """Published training tokens over parameters; None for a family without a published count."""
    tokens = TRAINING_TOKENS_B.get(family)
    return tokens / params_b if tokens and params_b > 0 else None


def _trained(q: Query) -> float:
    """How far training went: log10 of tokens a parameter over 100; 0 where nobody says."""
    tokens = q.tokens or tokens_per_parameter(q.family, q.params_b)
    return math.log10(tokens / REFERENCE_TOKENS) if tokens and tokens > 0 else 0.0


def weight_features(q: Query) -> Features | None:
    """The exponent of the weights' share; None at 16 bits."""
    if q.bits >= 16:
        return None
    kind, octave = METHOD_CLASS.get(q.method, PLAIN), octaves(q.group_size)
    whole_row = 1.0 if octave == octaves(None) and not q.group_size else 0.0
    low4, low3 = min(max(4.0 - q.bits, 0.0), 1.0), min(max(3.0 - q.bits, 0.0), 1.0)
    f: Features = {"w:1": 1.0, "w:group": octave, "w:row": whole_row}
    hinges("w:b", q.bits, WEIGHT_KNOTS, f)
    hinges(f"w:{kind}:b", q.bits, WEIGHT_KNOTS[3:], f)
    if low4:
        f["w:group<4"], f[f"w:{kind}:row<4"] = octave * low4, whole_row * low4
    if low3:
        f["w:group<3"], f[f"w:{kind}:row<3"] = octave * low3, whole_row * low3
    f["w:symmetric"] = 1.0 if q.symmetric else 0.0
    f["w:actorder"] = _act_order(q) if kind == SOLVED else 0.0
    f["w:trained"] = _trained(q)
    size = _size(q.params_b)
    f["w:size"], f[f"w:{kind}:size"] = size, size
    if q.weight_type == "float":
        f["w:float"] = 1.0
    f[f"w:method:{q.method}"] = f[f"w:family:{q.family}"] = f[f"w:family:{q.family}:{kind}"] = 1.0
    if q.model_key:
        f[f"w:model:{q.model_key}"] = f[f"w:model:{q.model_key}:{kind}"] = 1.0
    return f


def _act_order(q: Query) -> float:
    return {True: 1.0, False: 0.0, None: 0.5}[q.act_order]


def activation_features(q: Query) -> Features | None:
    """The exponent of the activations' share; None at 16 bits. Per token unless a group is given."""
    if q.act_bits >= 16:
        return None
    f: Features = {"a:1": 1.0}
    hinges("a:b", q.act_bits, ACT_KNOTS, f)
    if q.act_group and q.act_group > 0:
        f["a:finer"] = -(octaves(None) - octaves(q.act_group))
    if q.act_scope == "tensor":
        f["a:tensor"] = 1.0
    size = _size(q.params_b)
    f["a:size"] = f[f"a:family:{q.family}:size"] = size
    f[f"a:method:{q.method}"] = f[f"a:family:{q.family}"] = 1.0
    if q.act_type == "float":
        f["a:float"], f["a:float:size"] = 1.0, size
    if q.model_key:
        f[f"a:model:{q.model_key}"] = 1.0
    return f


def kv_features(q: Query) -> Features | None:
    """The exponent of the KV cache's share; None at 16 bits."""
    if q.kv_bits >= 16:
        return None
    f: Features = {"k:1": 1.0, f"k:family:{q.family}": 1.0, "k:size": _size(q.params_b)}
    hinges("k:b", q.kv_bits, KV_KNOTS, f)
    return f
