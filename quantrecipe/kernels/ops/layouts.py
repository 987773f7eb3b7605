"""What ``repack`` makes of a weight, by device: shapes and dtypes, all that a fake tensor needs of a layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

#: Shape and dtype of a tensor.
Spec = tuple[tuple[int, ...], torch.dtype]


@dataclass(frozen=True, slots=True)
class Weight:
    """What a layout is chosen by. dtype: of x; group_size 0: one group a row."""

    rows: int
    columns: int
    num_bits: int
    group_size: int
    dtype: torch.dtype
    scale_dtype: torch.dtype
    symmetric: bool

    @property
    def groups(self) -> int:
        """Of a row."""
        return self.columns // self.group_size if self.group_size else 1

    def plain(self) -> tuple[Spec, Spec]:
        """Scales, and zero points (empty where symmetric), as they come."""
        grid = self.rows, self.groups
        return (grid, self.scale_dtype), ((0,) if self.symmetric else grid, self.scale_dtype)


@dataclass(frozen=True, slots=True)
class Layout:
    """weight: what ``repack`` gives, codes, scales, zero points. w4a8: (N, K) -> what ``repack_w4a8`` gives."""

    weight: Callable[[Weight], tuple[Spec, Spec, Spec]]
    w4a8: Callable[[int, int], Spec]


#: By device type; kernels/cpu and kernels/cuda enter theirs. Other devices count as cpu.
LAYOUTS: dict[str, Layout] = {}


def layout_on(device: torch.device) -> Layout:
    """The layout of a device."""
    return LAYOUTS.get(device.type, LAYOUTS["cpu"])
