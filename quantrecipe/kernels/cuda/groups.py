"""Groups of columns and their scales, as the kernels of quantized weights take them."""

from __future__ import annotations

import torch

from quantrecipe.kernels.cuda.layout import PLANES, unpack_units

Tensor = torch.Tensor


def has_reciprocal(group_size: int, columns: int) -> bool:
    """Whether ``reciprocal`` finds every column's group: the error of the last is under 1."""
    return group_size != 1 and group_size * columns < 2**32


def reciprocal(group_size: int) -> int:
    """ceil(2^32 / size), whose product with a column has its group in the upper word; 0 = one group."""
    return -(-(2**32) // group_size) if group_size else 0


def beside(zeros: Tensor | None, scales: Tensor) -> Tensor | None:
    """Zero points in the scales' type and strides, copied only where they differ; None = symmetric."""
    if zeros is None or not zeros.numel():
        return None
    same = zeros.dtype == scales.dtype and zeros.stride() == scales.stride()
    return zeros if same else torch.empty_like(scales).copy_(zeros)


def unpacked(packed: Tensor, scales: Tensor, zeros: Tensor | None, num_bits: int, columns: int) -> Tensor:
    """The weight [N, K] in the scales' type, by torch: for what no kernel takes."""
    codes = unpack_units(packed, PLANES[num_bits], len(scales), columns).to(scales.dtype).view(*scales.shape, -1)
    start = 2.0 ** (num_bits - 1) if zeros is None else zeros.to(scales.dtype).unsqueeze(2)
    return ((codes - start) * scales.unsqueeze(2)).view(len(scales), columns)
