"""Weights as CUDA's kernels want them, made once a layer: repack, repack_w4a8."""

from __future__ import annotations

import torch

from quantrecipe.kernels.cuda.layout import FOUR_BY_EIGHT, PLANES, pack_units
from quantrecipe.kernels.ops.checks import check_codes, checked_weight
from quantrecipe.kernels.ops.library import implement

Tensor = torch.Tensor


@implement("repack", "CUDA")
def repack(
    codes: Tensor, scales: Tensor, zero_points: Tensor | None, num_bits: int, group_size: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """As ops/schemas.py: codes in kernels/cuda/layout.py's units, of any dtype of x.

    Scales are still [N, G], those of one group side by side in memory: the 16 rows of a unit share sectors.
    """
    weight = checked_weight(codes, scales, zero_points, num_bits, group_size, dtype)
    zeros = scales.new_empty(0)
    if zero_points is not None and not weight.symmetric:
        zeros = _by_group(zero_points.to(scales.dtype))
    return pack_units(codes, PLANES[num_bits]), _by_group(scales), zeros


@implement("repack_w4a8", "CUDA")
def repack_w4a8(codes: Tensor) -> Tensor:
    """As ops/schemas.py."""
    check_codes(codes)
    return pack_units(codes, FOUR_BY_EIGHT)


def _by_group(part: Tensor) -> Tensor:
    return part.t().contiguous().t() if part.shape[1] > 1 else part.clone()
