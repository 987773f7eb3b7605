"""What became of each quantized layer, which kernel multiplies for how many rows of inputs, and why: for reports."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from quantrecipe.kernels.cpu import choice
from quantrecipe.kernels.cuda import select
from quantrecipe.runtime.layers import QuantLinear
from quantrecipe.runtime.pack import Target

if TYPE_CHECKING:
    from quantrecipe.runtime.embedding import QuantEmbedding

#: Rows that a product is explained for: a token as text is written, a small batch, a prompt or a batch of windows.
ROWS = (1, 8, 2048)


@dataclass(frozen=True, slots=True)
class Step:
    """What multiplies for that many rows, and why."""

    rows: int
    kernel: str
    why: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The path of a layer and the reason for it. scheme: how its weight is kept; None where it is dequantized.

    shape: (N, K). kernels: by rows of inputs; none where nothing is multiplied, or torch multiplies as always.
    """

    path: str
    why: str
    scheme: str | None
    shape: tuple[int, int]
    kernels: tuple[Step, ...] = ()


def taken(layer: QuantLinear | QuantEmbedding, target: Target) -> Taken:
    """What became of a layer."""
    if not isinstance(layer, QuantLinear):
        return Taken(layer.path, layer.why, f"{layer.num_bits} bits", layer.shape)
    shape = layer.out_features, layer.in_features
    return Taken(layer.path, layer.why, scheme_of(layer), shape, tuple(explain(layer, m, target) for m in ROWS))


def scheme_of(layer: QuantLinear) -> str:
    """As presets are called."""
    if layer.path == "llm-int8":
        return "llm-int8"
    kind = "fp8-" if layer.path == "fp8" else ""
    name = f"{kind}w{layer.num_bits}a{8 if layer.inputs is not None else 16}"
    name += f"-g{layer.group_size}" if layer.group_size else ""
    name += "-static" if layer.inputs is not None and layer.inputs.scale is not None else ""
    return name if layer.held_as is None or layer.held_as.symmetric else f"{name}-asym"


def explain(layer: QuantLinear, rows: int, target: Target) -> Step:
    """What the layer's device multiplies that many rows with."""
    if target.device.type == "cuda":
        return Step(rows, *_on_cuda(layer, rows, target))
    if layer.held_as is not None:
        pick = choice.pick_weight_only(rows, layer.held_as)
    else:
        pick = choice.pick_eight_bit("fp8" if layer.path == "fp8" else "w8a8", rows)
    return Step(rows, pick.path, pick.reason)


def _on_cuda(layer: QuantLinear, rows: int, target: Target) -> tuple[str, str]:
    n, k, device = layer.out_features, layer.in_features, select.device_of(target.device)
    if layer.path != "weight-only":
        pick = select.pick_eight_bit(select.W8A8, rows, n, k, device)
    elif target.dtype == torch.float32:
        return "torch's product", "kernels take inputs of 16 bits; the weight is unpacked by torch"
    else:
        pick = select.pick_weight_only(rows, n, k, layer.group_size, device)
    return pick.kernel, pick.reason


def as_rows(found: Counter[Taken]) -> list[dict[str, Any]]:
    """Plain data, most layers first."""
    return [
        asdict(one) | {"shape": list(one.shape), "kernels": [asdict(step) for step in one.kernels], "layers": count}
        for one, count in found.most_common()
    ]
