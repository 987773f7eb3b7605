"""Shapes of what ``repack`` and ``repack_scales`` give, by device: what a fake tensor needs to know of a layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Shape = tuple[int, ...]


def plain_scales(rows: int, columns: int, num_bits: int, group_size: int) -> Shape:
    """Scales [N, G] as they are."""
    return rows, columns // group_size if group_size else 1


@dataclass(frozen=True, slots=True)
class Layout:
    """codes: (N, K, bits) -> shape and dtype of packed. w4a8: the same for linear_w4a8, (N, K).

    scales: (N, K, bits, group_size) -> shape of repacked scales; zero points get the same where they are given.
    """

    codes: Callable[[int, int, int], tuple[Shape, torch.dtype]]
    w4a8: Callable[[int, int], tuple[Shape, torch.dtype]]
    scales: Callable[[int, int, int, int], Shape] = plain_scales


#: By device type; kernels/cpu and kernels/cuda enter theirs. Other devices count as cpu.
LAYOUTS: dict[str, Layout] = {}


def layout_on(device: torch.device) -> Layout:
    """The layout of a device."""
    return LAYOUTS.get(device.type, LAYOUTS["cpu"])
