"""Turns a catalogue entry, its dimensions and the layout of its architecture, into a ModelSpec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from quantrecipe.model import Attention, GroupName, KvGeometry, Matrix, ModelSpec

Symbols = Mapping[str, int]
_FIXED = ("embeddings", "router", "head")  # groups that schemes leave alone


def evaluate(expression: str, symbols: Symbols) -> int:
    """The value of a sum of products of symbols and numbers, such as ``q+2*kv``."""
    total = 0
    for term in expression.split("+"):
        product = 1
        for factor in term.split("*"):
            product *= int(factor) if factor.isdigit() else symbols[factor]
        total += product
    return total


def symbols_of(entry: Mapping[str, Any]) -> dict[str, int]:
    """The symbols that layouts are written in (architectures.yaml) for one model."""
    hidden, heads = entry["hidden"], entry["heads"]
    head_dim = entry.get("head_dim", hidden // heads)
    experts_share = entry.get("shared_intermediate", 0)
    return {
        "h": hidden, "heads": heads, "d": head_dim, "q": heads * head_dim,
        "kv": entry.get("kv_heads", heads) * head_dim, "f": _intermediate(entry), "v": entry["vocab"],
        "w": entry.get("width", hidden), "e": entry.get("experts", 0),
        "ef": entry.get("expert_intermediate", 0), "sf": experts_share, "qr": entry.get("q_rank", 0),
        "kvr": entry.get("kv_rank", 0), "dn": entry.get("nope_dim", 0), "dr": entry.get("rope_dim", 0),
        "dv": entry.get("value_dim", 0),
    }  # fmt: skip


def _intermediate(entry: Mapping[str, Any]) -> int:
    return int(entry.get("intermediate") or entry.get("ffn", 0) * entry["hidden"])


def _layer_count(entry: Mapping[str, Any], which: str) -> int:
    dense = entry.get("dense_layers", 0)
    return int({"all": entry["layers"], "dense": dense, "moe": entry["layers"] - dense}[which])


def _linears(entry: Mapping[str, Any], layout: Mapping[str, Any], symbols: Symbols) -> Iterator[Matrix]:
    for group, name, rows, columns, bias, *which in layout["linears"]:
        count = _layer_count(entry, which[0] if which else "all") * (symbols["e"] if "{e}" in name else 1)
        yield Matrix(
            cast(GroupName, group), layout["layer"] + name, evaluate(rows, symbols), evaluate(columns, symbols),
            count, group not in _FIXED, bool(bias),
        )  # fmt: skip


def _outside(entry: Mapping[str, Any], layout: Mapping[str, Any], symbols: Symbols) -> Iterator[Matrix]:
    """Embeddings, learned positions, projections beside the layers, and an untied head."""
    yield Matrix("embeddings", layout["embed"], symbols["v"], symbols["w"], quantizable=False)
    if "position" in layout:
        yield Matrix("embeddings", layout["position"], entry.get("positions", entry["context"]), symbols["h"],
                     quantizable=False)  # fmt: skip
    for group, name, rows, columns, bias in layout.get("once", ()):
        yield Matrix(group, name, evaluate(rows, symbols), evaluate(columns, symbols), 1, False, bool(bias))
    if not entry.get("tied"):
        yield Matrix("head", layout.get("head", "lm_head"), symbols["v"], symbols["w"], 1, False,
                     layout.get("head_bias", False))  # fmt: skip


def kv_geometry(entry: Mapping[str, Any], symbols: Symbols) -> KvGeometry:
    """The cache's geometry; a window without a layer count holds for every layer."""
    layers, window = entry["layers"], entry.get("window")
    windowed = entry.get("windowed_layers", layers if window else 0)
    if symbols["kvr"]:
        return KvGeometry("mla", layers, symbols["kvr"] + symbols["dr"], 1, 1, window, windowed)
    heads, kv_heads = entry["heads"], entry.get("kv_heads", entry["heads"])
    kind: Attention = "mha" if kv_heads == heads else "mqa" if kv_heads == 1 else "gqa"
    return KvGeometry(kind, layers, 2 * symbols["kv"], 2 * kv_heads, kv_heads, window, windowed)


def build_spec(name: str, entry: Mapping[str, Any], layout: Mapping[str, Any]) -> ModelSpec:
    """The model that a catalogue entry and its architecture's layout describe."""
    symbols = symbols_of(entry)
    matrices = (*_outside(entry, layout, symbols), *_linears(entry, layout, symbols))
    norms = entry["layers"] * evaluate(layout["vectors"], symbols) + evaluate(layout["final"], symbols)
    published = entry.get("published")
    return ModelSpec(
        id=name, family=entry["family"], hub_id=entry.get("hub"), matrices=matrices, norm_parameters=norms,
        kv=kv_geometry(entry, symbols), hidden=symbols["h"], layers=entry["layers"], heads=symbols["heads"],
        vocab=symbols["v"], context=entry["context"], intermediate=symbols["f"] or symbols["ef"],
        tied=bool(entry.get("tied")), gated=layout["gated"], plain_linear=layout.get("plain_linear", True),
        experts=symbols["e"], active_experts=entry.get("active_experts", 0),
        training_tokens=entry.get("training_tokens"), published=int(published) if published else None,
        norm=layout.get("norm", "rmsnorm"), activation=layout.get("activation"), source=entry["source"],
        tokenizer=entry.get("tokenizer", entry["family"]),
    )  # fmt: skip
