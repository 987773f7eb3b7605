"""Linear layers that keep their weight as codes and multiply through ``torch.ops.quantrecipe``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from quantrecipe.kernels import ops
from quantrecipe.kernels.ops.layouts import Weight

OPS = torch.ops.quantrecipe
Tensor = torch.Tensor
Path = Literal["weight-only", "w8a8", "fp8", "llm-int8"]
assert "linear_weight_only" in ops.SCHEMAS


@dataclass(frozen=True, slots=True)
class Inputs:
    """How a layer's inputs become 8-bit numbers. scale: static, fp32 []; None = of each token.

    zero: int32 [], with a static scale. threshold: LLM.int8()'s.
    """

    kind: Literal["int8", "fp8"]
    scale: Tensor | None = None
    zero: Tensor | None = None
    threshold: float | None = None

    def on(self, device: torch.device) -> Inputs:
        """The same, its tensors on a device."""
        scale, zero = (None if one is None else one.to(device) for one in (self.scale, self.zero))
        return Inputs(self.kind, scale, zero, self.threshold)

    def rounded(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Codes [M, K], scales fp32 [M] and zero points int32 [M] (None = 0) of x [M, K]."""
        if self.scale is None:
            codes, scales = OPS.quantize_activation(x, self.kind, 0, None)
            return codes, scales.view(-1), None
        steps, rows = x.float() / self.scale, len(x)
        scales = self.scale.expand(rows)
        if self.kind == "fp8":
            return steps.clamp_(-448, 448).to(torch.float8_e4m3fn), scales, None
        if self.zero is not None:
            steps = steps + self.zero
        zeros = None if self.zero is None else self.zero.expand(rows)
        return steps.round_().clamp_(-128, 127).to(torch.int8), scales, zeros


class QuantLinear(nn.Module):
    """y = x W^T + bias with W [N, K] as codes. path: the operator that multiplies; why: the reason for it.

    weight: what the operator takes (packed codes, int8, float8). scales, zeros: as it takes them. order: int64 [K],
    the columns in the order of their groups (GPTQ's act-order), or None. held_as: what weight-only codes were packed
    by, which tells what multiplies.
    """

    weight: Tensor
    scales: Tensor
    zeros: Tensor | None
    bias: Tensor | None
    order: Tensor | None
    sums: Tensor | None

    def __init__(self, path: Path, why: str, shape: tuple[int, int], num_bits: int, group_size: int = 0) -> None:
        super().__init__()
        self.path, self.why, self.num_bits, self.group_size = path, why, num_bits, group_size
        self.out_features, self.in_features = shape
        self.inputs: Inputs | None = None
        self.held_as: Weight | None = None
        for name in ("weight", "scales", "zeros", "bias", "order", "sums"):
            self.register_buffer(name, None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., K] -> [..., N] in x's dtype."""
        if not x.numel():  # an expert that no token was sent to
            return x.new_empty(*x.shape[:-1], self.out_features)
        given = x if self.order is None else x[..., self.order]
        return _FORWARD[self.path](self, given)

    def extra_repr(self) -> str:
        """As printed."""
        return f"{self.in_features}, {self.out_features}, {self.num_bits} bits, {self.path}"

    @property
    def nbytes(self) -> int:
        """Bytes of all that it holds."""
        return sum(buffer.nbytes for buffer in self.buffers())


def _weight_only(layer: QuantLinear, x: Tensor) -> Tensor:
    found: Tensor = OPS.linear_weight_only(
        x, layer.weight, layer.scales, layer.zeros, layer.bias, layer.num_bits, layer.group_size, layer.out_features
    )
    return found


def _rows(layer: QuantLinear, x: Tensor, product: Callable[[Tensor], Tensor]) -> Tensor:
    return product(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], layer.out_features)


def _w8a8(layer: QuantLinear, x: Tensor) -> Tensor:
    def product(rows: Tensor) -> Tensor:
        assert layer.inputs is not None
        q, scales, zeros = layer.inputs.rounded(rows)
        found: Tensor = OPS.linear_w8a8(q, scales, layer.weight, layer.scales, zeros, layer.sums, layer.bias, x.dtype)
        return found

    return _rows(layer, x, product)


def _fp8(layer: QuantLinear, x: Tensor) -> Tensor:
    def product(rows: Tensor) -> Tensor:
        q, scales = (rows, None) if layer.inputs is None else layer.inputs.rounded(rows)[:2]
        found: Tensor = OPS.linear_fp8(q, scales, layer.weight, layer.scales, layer.bias, x.dtype)
        return found

    return _rows(layer, x, product)


def _llm_int8(layer: QuantLinear, x: Tensor) -> Tensor:
    def product(rows: Tensor) -> Tensor:
        assert layer.inputs is not None
        found: Tensor = OPS.linear_llm_int8(rows, layer.weight, layer.scales, layer.inputs.threshold, layer.bias)
        return found

    return _rows(layer, x, product)


_FORWARD: dict[str, Callable[[QuantLinear, Tensor], Tensor]] = {
    "weight-only": _weight_only,
    "w8a8": _w8a8,
    "fp8": _fp8,
    "llm-int8": _llm_int8,
}
