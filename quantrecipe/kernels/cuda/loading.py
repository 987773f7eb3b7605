"""Weights as CUDA's kernels want them, made once a layer: repack, repack_scales, repack_w4a8."""

from __future__ import annotations

import torch

from quantrecipe.kernels.cuda.layout import FOUR_BY_EIGHT, PLANES, pack_units
from quantrecipe.kernels.ops.checks import check_bits, check_codes, check_scales, group_count
from quantrecipe.kernels.ops.library import implement

Tensor = torch.Tensor


@implement("repack", "CUDA")
def repack(codes: Tensor, num_bits: int) -> Tensor:
    """As ops/schemas.py, in the layout of kernels/cuda/layout.py."""
    check_bits(num_bits)
    check_codes(codes)
    return pack_units(codes, PLANES[num_bits])


@implement("repack_w4a8", "CUDA")
def repack_w4a8(codes: Tensor) -> Tensor:
    """As ops/schemas.py."""
    check_codes(codes)
    return pack_units(codes, FOUR_BY_EIGHT)


@implement("repack_scales", "CUDA")
def repack_scales(
    scales: Tensor, zero_points: Tensor | None, num_bits: int, group_size: int, in_features: int
) -> tuple[Tensor, Tensor]:
    """Still [N, G], but the scales of one group side by side in memory: the 16 rows of a unit share sectors."""
    check_bits(num_bits)
    check_scales(scales, len(scales), group_count(in_features, group_size))
    if zero_points is None or not zero_points.numel():
        return _by_group(scales), scales.new_empty(0)
    return _by_group(scales), _by_group(zero_points.to(scales.dtype))


def _by_group(part: Tensor) -> Tensor:
    return part.t().contiguous().t() if part.shape[1] > 1 else part.clone()
