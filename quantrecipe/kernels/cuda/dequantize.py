"""Packed weights back to 16 bits: the launcher of dequantize."""

from __future__ import annotations

import ctypes

import torch

from quantrecipe.kernels.catalog import variant
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
    """As ops/schemas.py: code times scale in the scales' type, one rounding, then ``dtype``."""
    check_bits(num_bits)
    rows, groups = scales.shape[0], group_count(in_features, group_size)
    check_scales(scales, rows, groups)
    if scales.dtype not in (torch.float16, torch.bfloat16):
        scales = scales.to(dtype)
    zeros = _beside(zero_points, scales)
    weight = torch.empty(rows, in_features, dtype=scales.dtype, device=packed.device)
    kernel = variant("dequantize", SCALAR=scalar_name(scales.dtype), BITS=num_bits)
    units = blocks(rows, ROWS) * blocks(in_features, COLUMNS)
    size = in_features // groups
    launch(
        kernel, (blocks(units, WARPS),), 32 * WARPS, 0, packed, scales, zeros, weight,
        *map(integer, (rows, in_features, groups, scales.stride(0), scales.stride(1))),
        ctypes.c_uint(0 if groups == 1 else blocks(2**32, size)),
        integer(int(groups == 1 or size % 16 == 0)), integer(int(is_aligned(weight))),
    )  # fmt: skip
    return weight.to(dtype)


def _beside(zero_points: torch.Tensor | None, scales: torch.Tensor) -> torch.Tensor | None:
    """Zero points in the scales' type and strides; None = symmetric."""
    if zero_points is None or not zero_points.numel():
        return None
    same = zero_points.dtype == scales.dtype and zero_points.stride() == scales.stride()
    return zero_points if same else torch.empty_like(scales).copy_(zero_points)
