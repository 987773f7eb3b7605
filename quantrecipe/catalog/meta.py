"""Any architecture that transformers knows, built without weights on the meta device: exact shapes, no memory."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from quantrecipe.config_limits import check_config
from quantrecipe.errors import ModelError
from quantrecipe.model import Attention, GroupName, KvGeometry, Matrix, ModelSpec

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
_PARTS: tuple[tuple[GroupName, str], ...] = (
    ("experts", r"experts\.(?!.*shared)|\.experts$"),
    ("router", r"router|mlp\.gate$|block_sparse_moe\.gate$|shared_expert_gate$"),
    ("attention", r"attn|attention|self_attention|mixer"),
    ("mlp", r"mlp|ffn|fc|feed_forward|dense_"),
)


def spec_from_config(config: Mapping[str, Any], folder: Path, name: str) -> ModelSpec:
    """The model that a config.json describes. Raises ModelError where transformers cannot build it."""
    check_config(config)
    model = build_on_meta(dict(config))
    text = model.config.get_text_config()
    head = model.get_output_embeddings()
    embedding = model.get_input_embeddings()
    tied = bool(head is not None and head.weight is embedding.weight)
    matrices, vectors = _matrices(model, head, embedding)
    if not any(m.group == "embeddings" for m in matrices):
        raise ModelError("no language model there", value=name, limit="it has no input embedding")
    return ModelSpec(
        id=name, family=str(text.model_type), hub_id=str(folder.resolve()), matrices=tuple(matrices),
        norm_parameters=vectors, kv=_kv(text), hidden=int(text.hidden_size), layers=int(text.num_hidden_layers),
        heads=int(text.num_attention_heads), vocab=int(embedding.weight.shape[0]), context=_context(text),
        intermediate=_intermediate(text, matrices), tied=tied, gated=any("gate" in m.name for m in matrices),
        plain_linear=not any(_is_odd(module) for module in model.modules()),
        experts=int(_first(text, "num_local_experts", "num_experts", "n_routed_experts") or 0),
        active_experts=int(_first(text, "num_experts_per_tok", "num_experts_per_token") or 0),
        source=f"config.json in {folder}", local=True,
    )  # fmt: skip


def build_on_meta(config: dict[str, Any]) -> Any:
    """The causal language model of a config, weightless. Raises ModelError."""
    try:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError as error:
        raise ModelError(
            "reading a config.json needs torch and transformers", remedy="pip install 'quantrecipe[run]'"
        ) from error
    try:
        kind = config.pop("model_type")
        with torch.device("meta"):
            return cast(Any, AutoModelForCausalLM).from_config(AutoConfig.for_model(kind, **config))
    except Exception as error:  # any config of any architecture: whatever it raises is the config's fault
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ModelError("transformers cannot build this config.json", limit=reason) from error


def _matrices(model: Any, head: Any, embedding: Any) -> tuple[list[Matrix], int]:
    """Matrices of one shape and place in every layer are one entry; everything else counts as vectors."""
    seen: set[int] = set()
    counts: dict[tuple[str, int, int, bool, GroupName, bool], int] = defaultdict(int)
    vectors = 0
    for path, module in model.named_modules():
        own = [(key, p) for key, p in module._parameters.items() if p is not None and id(p) not in seen]
        seen.update(id(p) for _, p in own)
        rest = dict(own)
        for key, matrix in _split(type(module).__name__, own):
            group = "embeddings" if module is embedding else "head" if module is head else _group(path, key)
            biased = key == "weight" and "bias" in rest
            full = path if key == "weight" else f"{path}.{key}"
            linear = _is_linear(module) or group == "experts"
            place = (_LAYER.sub("{i}", full), *matrix[:2], biased, group, linear and group not in _FIXED)
            counts[place] += matrix[2]
            rest.pop(key)
            if biased:
                rest.pop("bias")
        vectors += sum(p.numel() for p in rest.values())
    return [Matrix(g, n, r, c, count, q, b) for (n, r, c, b, g, q), count in counts.items()], vectors


def _is_odd(module: Any) -> bool:
    """A matrix that is no nn.Linear itself, which compressed-tensors' readers do not attach to."""
    return _is_linear(module) and type(module).__name__ != "Linear"


def _is_linear(module: Any) -> bool:
    """nn.Linear or a kind of it (Falcon's), or GPT-2's Conv1D."""
    return any(kind.__name__ in ("Linear", "Conv1D") for kind in type(module).__mro__)


_FIXED = ("embeddings", "head", "router")


def _split(kind: str, own: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """(rows, columns, count) of each parameter that is a matrix, or a stack of one an expert."""
    for key, parameter in own:
        shape = tuple(parameter.shape)
        if key.endswith("bias"):  # one row an expert is no matrix either
            continue
        if len(shape) == 2:
            yield key, (shape[1], shape[0], 1) if kind == "Conv1D" else (shape[0], shape[1], 1)
        elif len(shape) == 3:
            yield key, (shape[1], shape[2], shape[0])


def _group(path: str, key: str) -> GroupName:
    name = f"{path}.{key}".removesuffix(".weight")
    for group, pattern in _PARTS:
        if re.search(pattern, name):
            return group
    return "embeddings"


def _first(config: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)


def _context(config: Any) -> int:
    return int(_first(config, "max_position_embeddings", "n_positions", "max_seq_len", "seq_length") or 2048)


def _intermediate(config: Any, matrices: list[Matrix]) -> int:
    stated = _first(config, "intermediate_size", "ffn_dim", "n_inner")
    hidden = int(config.hidden_size)
    return int(stated or max((m.columns for m in matrices if m.group in ("mlp", "experts")), default=4 * hidden))


def _kv(config: Any) -> KvGeometry:
    """The cache's geometry from the usual names of a config."""
    layers, heads = int(config.num_hidden_layers), int(config.num_attention_heads)
    rank = getattr(config, "kv_lora_rank", None)
    window, windowed = _window(config, layers)
    if rank:
        return KvGeometry("mla", layers, int(rank) + int(config.qk_rope_head_dim), 1, 1, window, windowed)
    kv_heads = int(_first(config, "num_key_value_heads", "num_kv_heads") or heads)
    if getattr(config, "multi_query", False) and not getattr(config, "new_decoder_architecture", False):
        kv_heads = 1
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    kind: Attention = "mha" if kv_heads == heads else "mqa" if kv_heads == 1 else "gqa"
    return KvGeometry(kind, layers, 2 * kv_heads * width, 2 * kv_heads, kv_heads, window, windowed)


def _window(config: Any, layers: int) -> tuple[int | None, int]:
    """The sliding window and how many layers have it."""
    window = getattr(config, "sliding_window", None)
    if not window or getattr(config, "use_sliding_window", True) is False:
        return None, 0
    kinds = getattr(config, "layer_types", None)
    return int(window), sum(kind == "sliding_attention" for kind in kinds) if kinds else layers
