"""Packed weights back to 16 bits: the launcher of dequantize."""

from __future__ import annotations

import ctypes

import torch

from quantrecipe.kernels.catalog import variant
from quantrecipe.kernels.cuda.groups import beside, has_reciprocal, reciprocal, unpacked
from quantrecipe.kernels.cuda.launch import blocks, integer, launch, scalar_name
from quantrecipe.kernels.cuda.layout import COLUMNS, ROWS
from quantrecipe.kernels.cuda.quantize import is_aligned
from quantrecipe.kernels.ops.checks import check_bits, check_scales, group_count
from quantrecipe.kernels.ops.library import implement

WARPS = 8  # csrc/dequantize.cu


@implement("dequantize", "CUDA")
def dequantize(
    packed: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor | None,
    num_bits: int,
    group_size: int,
    in_features: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """As ops/schemas.py: code times scale in the scales' type, one rounding, then ``dtype``; groups of 1 by torch."""
    check_bits(num_bits)
    rows, groups = scales.shape[0], group_count(in_features, group_size)
    check_scales(scales, rows, groups)
    if scales.dtype not in (torch.float16, torch.bfloat16):
        scales = scales.to(dtype)
    zeros, size = beside(zero_points, scales), in_features // groups
    if groups > 1 and not has_reciprocal(size, in_features):
        return unpacked(packed, scales, zeros, num_bits, in_features).to(dtype)
    weight = torch.empty(rows, in_features, dtype=scales.dtype, device=packed.device)
    kernel = variant("dequantize", SCALAR=scalar_name(scales.dtype), BITS=num_bits)
    units = blocks(rows, ROWS) * blocks(in_features, COLUMNS)
    launch(
        kernel, (blocks(units, WARPS),), 32 * WARPS, 0, packed, scales, zeros, weight,
        *map(integer, (rows, in_features, groups, scales.stride(0), scales.stride(1))),
        ctypes.c_uint(reciprocal(0 if groups == 1 else size)),
        integer(int(groups == 1 or size % 16 == 0)), integer(int(is_aligned(weight))),
    )  # fmt: skip
    return weight.to(dtype)
