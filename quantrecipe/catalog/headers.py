"""A folder without config.json: shapes from the headers of its safetensors, the rest inferred and said."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from quantrecipe.catalog.local import tensor_shapes
from quantrecipe.errors import ModelError
from quantrecipe.model import GroupName, KvGeometry, Matrix, ModelSpec

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_CONTEXT = 2048  # headers do not say it
_HEAD_DIM = 128  # nor this; heads are counted in this width where the matrices allow


def spec_from_headers(folder: Path) -> ModelSpec:
    """The model that the tensors' shapes show. Raises ModelError where they are no decoder's."""
    shapes = tensor_shapes(folder)
    matrices, vectors = _collect(shapes)
    embedding = next((m for m in matrices if m.group == "embeddings" and m.rows > m.columns), None)
    if embedding is None:
        raise ModelError("no embedding among the tensors", value=str(folder), remedy="add the model's config.json")
    layers = 1 + max((int(n) for name in shapes for n in _NUMBER.findall(name)[:1]), default=-1)
    if layers < 1:
        raise ModelError(
            "no decoder layers among the tensors", value=str(folder), remedy="add the model's config.json"
        )
    hidden, tied = embedding.columns, not any(m.group == "head" for m in matrices)
    return ModelSpec(
        id=folder.name, family="unknown", hub_id=str(folder.resolve()), matrices=tuple(matrices),
        norm_parameters=vectors, kv=_kv(matrices, layers, hidden), hidden=hidden, layers=layers,
        heads=max(1, hidden // _HEAD_DIM), vocab=embedding.rows, context=_CONTEXT,
        intermediate=max((m.rows for m in matrices if m.group == "mlp"), default=4 * hidden), tied=tied,
        source=f"safetensors headers in {folder}", local=True,
    )  # fmt: skip


def _collect(shapes: dict[str, list[int]]) -> tuple[list[Matrix], int]:
    counts: dict[tuple[str, int, int, GroupName], int] = defaultdict(int)
    vectors = 0
    for name, shape in shapes.items():
        if len(shape) == 2 and name.endswith(".weight"):
            pattern = _NUMBER.sub("{i}", name.removesuffix(".weight"))
            counts[pattern, shape[0], shape[1], _group(pattern)] += 1
        else:
            size = 1
            for length in shape:
                size *= length
            vectors += size
    fixed = ("embeddings", "head", "router")
    return [Matrix(g, n, r, c, count, g not in fixed) for (n, r, c, g), count in counts.items()], vectors


def _group(name: str) -> GroupName:
    if re.search(r"lm_head|embed_out|output_layer", name):
        return "head"
    if re.search(r"embed|wte|wpe", name):
        return "embeddings"
    if re.search(r"experts\.", name):
        return "experts"
    if re.search(r"router|\.gate$", name):
        return "router"
    return "attention" if re.search(r"attn|attention", name) else "mlp"


def _kv(matrices: list[Matrix], layers: int, hidden: int) -> KvGeometry:
    """From k_proj and v_proj where they stand alone; else as wide as the model."""
    split = [m.rows for m in matrices if re.search(r"\.(k_proj|v_proj)$", m.name)]
    width = sum(split) if len(split) == 2 else 2 * hidden
    heads = max(1, width // 2 // _HEAD_DIM)
    return KvGeometry("mha" if width == 2 * hidden else "gqa", layers, width, 2 * heads, heads)
