"""Shapes and dtypes of what operators give (fake implementations), so that torch.compile and the meta device work."""

from __future__ import annotations

import torch

from quantrecipe.kernels.ops.checks import check_bits, check_codes, check_inputs, checked_weight, group_count
from quantrecipe.kernels.ops.layouts import layout_on
from quantrecipe.kernels.ops.library import fake

Tensor = torch.Tensor


@fake("quantize_pack")
def quantize_pack(
    weight: Tensor, num_bits: int, group_size: int, symmetric: bool, kind: str = "int"
) -> tuple[Tensor, Tensor, Tensor]:
    """Packed codes, scales, zero points."""
    rows, columns = weight.shape
    scales = weight.new_empty(rows, group_count(columns, group_size))
    zeros = weight.new_empty(0) if symmetric else torch.empty_like(scales)
    if kind == "fp8":
        return weight.new_empty(rows, columns, dtype=torch.float8_e4m3fn), scales, zeros
    check_bits(num_bits)
    words = (columns * num_bits + 31) // 32
    shape, dtype = ((rows, columns), torch.int8) if num_bits == 8 else ((rows, words), torch.int32)
    return weight.new_empty(shape, dtype=dtype), scales, zeros


@fake("quantize_activation")
def quantize_activation(
    x: Tensor, kind: str = "int8", group_size: int = 0, smooth: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Codes and fp32 scales."""
    rows, columns = x.shape
    codes = x.new_empty(rows, columns, dtype=torch.int8 if kind == "int8" else torch.float8_e4m3fn)
    return codes, x.new_empty(rows, group_count(columns, group_size), dtype=torch.float32)


@fake("repack")
def repack(
    codes: Tensor, scales: Tensor, zero_points: Tensor | None, num_bits: int, group_size: int, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """As the device's layout says."""
    weight = checked_weight(codes, scales, zero_points, num_bits, group_size, dtype)
    specs = layout_on(codes.device).weight(weight)
    return tuple(codes.new_empty(shape, dtype=kind) for shape, kind in specs)


@fake("linear_weight_only")
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
    """[..., N] in x's dtype."""
    check_bits(num_bits)
    group_count(x.shape[-1], group_size)
    return x.new_empty(*x.shape[:-1], out_features)


@fake("linear_w8a8")
def linear_w8a8(
    q: Tensor,
    x_scales: Tensor,
    weight: Tensor,
    w_scales: Tensor,
    x_zero_points: Tensor | None,
    w_sums: Tensor | None,
    bias: Tensor | None,
    out_dtype: torch.dtype,
) -> Tensor:
    """[M, N]."""
    check_inputs(q, weight.shape[1])
    return q.new_empty(q.shape[0], weight.shape[0], dtype=out_dtype)


@fake("repack_w4a8")
def repack_w4a8(codes: Tensor) -> Tensor:
    """As the device's layout says."""
    check_codes(codes)
    rows, columns = codes.shape
    shape, dtype = layout_on(codes.device).w4a8(rows, columns)
    return codes.new_empty(shape, dtype=dtype)


@fake("linear_w4a8")
def linear_w4a8(
    q: Tensor,
    x_scales: Tensor,
    packed: Tensor,
    w_scales: Tensor,
    group_scales: Tensor | None,
    bias: Tensor | None,
    group_size: int,
    out_dtype: torch.dtype,
) -> Tensor:
    """[M, N]."""
    group_count(q.shape[1], group_size)
    return q.new_empty(q.shape[0], w_scales.shape[0], dtype=out_dtype)


@fake("linear_fp8")
def linear_fp8(
    q: Tensor, x_scales: Tensor | None, weight: Tensor, w_scales: Tensor, bias: Tensor | None, out_dtype: torch.dtype
) -> Tensor:
    """[M, N]."""
    check_inputs(q, weight.shape[1])
    return q.new_empty(q.shape[0], weight.shape[0], dtype=out_dtype)


@fake("linear_llm_int8")
def linear_llm_int8(x: Tensor, weight: Tensor, w_scales: Tensor, threshold: float, bias: Tensor | None) -> Tensor:
    """[M, N] in x's dtype."""
    check_inputs(x, weight.shape[1])
    return x.new_empty(x.shape[0], weight.shape[0])


@fake("gptq_block")
def gptq_block(
    weight: Tensor, factor: Tensor, scales: Tensor, zero_points: Tensor, groups: Tensor, num_bits: int
) -> tuple[Tensor, Tensor]:
    """Codes and errors."""
    return torch.empty_like(weight, dtype=torch.int8), torch.empty_like(weight)


@fake("dequantize")
def dequantize(
    packed: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    num_bits: int,
    group_size: int,
    in_features: int,
    dtype: torch.dtype,
) -> Tensor:
    """[N, K]."""
    group_count(in_features, group_size)
    rows = scales.shape[1] if scales.dim() == 3 else scales.shape[0]
    return scales.new_empty(rows, in_features, dtype=dtype)
