"""Weights of 2 to 8 bits, inputs in 16 or 32: repack, linear_weight_only, dequantize on CPU."""

from __future__ import annotations

import torch

from quantrecipe.kernels.cpu import layout, tiles
from quantrecipe.kernels.cpu.choice import chunk_rows, pick_layout
from quantrecipe.kernels.cpu.held import Held, held
from quantrecipe.kernels.cpu.numbers import loopable
from quantrecipe.kernels.ops.checks import checked_weight
from quantrecipe.kernels.ops.layouts import LAYOUTS, Layout, Spec, Weight
from quantrecipe.kernels.ops.library import implement

Tensor = torch.Tensor


@implement("repack", "CPU")
def repack(
    codes: Tensor, scales: Tensor, zero_points: Tensor | None, num_bits: int, group_size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """As ops/schemas.py, in the layout that choice.py picks."""
    weight = checked_weight(codes, scales, zero_points, num_bits, group_size, dtype)
    kind = pick_layout(weight)[0]
    if kind == "tiles":
        return tiles.pack(codes, tiles.WIDTH), *tiles.grid_of(scales, zero_points)
    zeros = scales.new_empty(0)
    if zero_points is not None and not weight.symmetric:
        zeros = zero_points.to(scales.dtype).clone(memory_format=torch.contiguous_format)
    packed = (codes ^ 128).view(torch.int8) if kind == "bytes" else layout.pack(codes, num_bits)
    return packed, scales.clone(memory_format=torch.contiguous_format), zeros


def specs(weight: Weight) -> tuple[Spec, Spec, Spec]:
    """What repack gives."""
    kind, plain = pick_layout(weight)[0], weight.plain()
    if kind == "tiles":
        shape = weight.rows // tiles.WIDTH, weight.columns, tiles.WIDTH // 2
        return (shape, torch.uint8), ((weight.groups, weight.rows, 2), weight.scale_dtype), plain[1]
    if kind == "bytes":
        return ((weight.rows, weight.columns), torch.int8), *plain
    return layout.packed_shape(weight.rows, weight.columns, weight.num_bits), *plain


LAYOUTS["cpu"] = Layout(weight=specs, w4a8=lambda rows, columns: layout.packed_shape(rows, columns, 4))


@implement("linear_weight_only", "CPU")
def linear_weight_only(
    x: Tensor,
    packed: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    bias: Tensor | None,
    num_bits: int,
    group_size: int,
    out_features: int,
) -> Tensor:
    """As packed for few rows, else unpacked in chunks."""
    shape, rows = (out_features, x.shape[-1]), x.reshape(-1, x.shape[-1])
    weight = held(packed, scales, zero_points, num_bits, group_size, shape)
    found = weight.product(rows, bias) if weight.takes(rows) else in_chunks(rows, weight, bias, out_features)
    return found.to(x.dtype).view(*x.shape[:-1], out_features)


def in_chunks(rows: Tensor, weight: Held, bias: Tensor | None, n: int) -> Tensor:
    """x [M, K] by n rows of a weight, unpacked part by part: [M, n], in bfloat16 or float32."""
    rows = loopable(rows)
    step, added = chunk_rows(rows.shape[1]), None if bias is None else bias.to(rows.dtype)
    if step >= n:
        return torch.nn.functional.linear(rows, weight.weight(0, n, rows.dtype), added)
    out = rows.new_empty(len(rows), n)
    for a in range(0, n, step):
        b = min(a + step, n)
        part = weight.weight(a, b, rows.dtype)
        out[:, a:b] = torch.nn.functional.linear(rows, part, None if added is None else added[a:b])
    return out


@implement("dequantize", "CPU")
def dequantize(
    packed: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    num_bits: int,
    group_size: int,
    in_features: int,
    dtype: torch.dtype,
) -> Tensor:
    """[N, K]: (code - zero) * scale in fp32, rounded once."""
    kind = dtype if dtype == torch.bfloat16 else torch.float32
    rows = scales.shape[1] if scales.dim() == 3 else len(scales)
    weight = held(packed, scales, zero_points, num_bits, group_size, (rows, in_features))
    return weight.weight(0, rows, kind).to(dtype)
