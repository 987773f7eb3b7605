"""Packed weights by layout, as their shapes and dtypes tell: each multiplies few rows, and gives its numbers back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from quantrecipe.errors import BackendError
from quantrecipe.kernels.cpu import byte_loops, layout, loops, tile_loops, tiles
from quantrecipe.kernels.cpu.choice import FEW_ROWS, LOOP, Kind, path_of
from quantrecipe.kernels.cpu.numbers import loopable, raw, use_threads
from quantrecipe.kernels.ops.checks import check_bits, check_scales, group_count

Tensor = torch.Tensor


class Held(Protocol):
    """A weight [N, K]."""

    def takes(self, x: Tensor) -> bool:
        """Whether ``product`` is the fast way for x [M, K]."""
        ...

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[M, N] for few rows x [M, K]."""
        ...

    def weight(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:
        """Rows start … stop in bfloat16 or float32, each rounded once; start is a multiple of 64."""
        ...


@dataclass(frozen=True, slots=True)
class Planes:
    """Our own layout. zeros: [N, G] or empty."""

    packed: Tensor
    scales: Tensor
    zeros: Tensor
    num_bits: int
    columns: int

    def takes(self, x: Tensor) -> bool:  # noqa: D102
        return len(x) <= FEW_ROWS["planes"]

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:  # noqa: D102
        x = loopable(x)
        out = x.new_empty(len(x), len(self.packed))
        added = x.new_empty(0, dtype=torch.float32) if bias is None else bias.float()
        use_threads()
        parts = (raw(one) for one in (x, self.packed, self.scales, self.zeros, added))
        loops.times_packed(*parts, self.num_bits, raw(out))
        return out

    def weight(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:  # noqa: D102
        part = slice(start, stop)
        out = self.packed.new_empty(len(self.packed[part]), self.columns, dtype=dtype)
        use_threads()
        parts = (raw(one[part]) for one in (self.packed, self.scales, self.zeros))
        loops.dequantize_rows(*parts, self.num_bits, raw(out))
        return out


@dataclass(frozen=True, slots=True)
class Tiles:
    """Torch's layout of 4 bits. rest: [N, G], what the grid's shifts lack; None = nothing."""

    packed: Tensor
    grid: Tensor
    rest: Tensor | None

    def takes(self, x: Tensor) -> bool:  # noqa: D102
        return x.shape[0] <= FEW_ROWS["tiles"] and x.dtype == self.grid.dtype == torch.bfloat16

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:  # noqa: D102
        size = self.packed.shape[1] // self.grid.shape[0]
        found = tiles.product(x.contiguous(), self.packed, size, self.grid)
        if self.rest is not None:
            found += torch.nn.functional.linear(x.view(len(x), -1, size).sum(2), self.rest)
        return found if bias is None else found.add_(bias)

    def weight(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:  # noqa: D102
        width = 2 * self.packed.shape[2]
        part = self.packed[start // width : -(-stop // width)]
        out = part.new_empty(len(part) * width, self.packed.shape[1], dtype=dtype)
        use_threads()
        rest = self.grid.new_empty(0, 0) if self.rest is None else self.rest
        tile_loops.dequantize_tiles(raw(part), raw(self.grid), raw(rest), start, raw(out))
        return out


@dataclass(frozen=True, slots=True)
class Bytes:
    """int8 [N, K] with one scale a row [N]."""

    packed: Tensor
    scales: Tensor

    def takes(self, x: Tensor) -> bool:  # noqa: D102
        return len(x) <= FEW_ROWS["bytes"] and x.dtype == self.scales.dtype == torch.bfloat16

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:  # noqa: D102
        if path_of("bytes", len(x)) == LOOP:
            return self._loop(x.float().contiguous(), bias)
        found: Tensor = torch.ops.aten._weight_int8pack_mm(x.contiguous(), self.packed, self.scales)
        return found if bias is None else found.add_(bias)

    def _loop(self, x: Tensor, bias: Tensor | None) -> Tensor:
        added, out = x.new_empty(0) if bias is None else bias.float(), self.scales.new_empty(len(x), len(self.packed))
        use_threads()
        byte_loops.times_bytes(*(raw(one) for one in (x, self.packed, self.scales, added, out)))
        return out

    def weight(self, start: int, stop: int, dtype: torch.dtype) -> Tensor:  # noqa: D102
        out = self.packed.new_empty(stop - start, self.packed.shape[1], dtype=dtype)
        use_threads()
        byte_loops.dequantize_bytes(raw(self.packed[start:stop]), raw(loopable(self.scales[start:stop])), raw(out))
        return out


def kind_of(packed: Tensor) -> Kind:
    """The layout."""
    if packed.dim() == 3:
        return "tiles"
    return "bytes" if packed.dtype == torch.int8 else "planes"


def held(
    packed: Tensor, scales: Tensor, zeros: Tensor | None, num_bits: int, group_size: int, shape: tuple[int, int]
) -> Held:
    """The weight of ``shape`` [N, K], its parts fitting together, before a loop runs past its arrays."""
    check_bits(num_bits)
    kind, grid = kind_of(packed), (shape[0], group_count(shape[1], group_size))
    zeros = None if zeros is None or not zeros.numel() else zeros
    if kind == "tiles":
        return _tiles(packed, scales, zeros, shape, grid)
    check_scales(scales, *grid)
    if kind == "bytes":
        check_scales(packed, *shape)
        if zeros is not None or grid[1] > 1:
            raise BackendError("int8 codes", value=list(grid), limit="one scale a row, no zero points")
        return Bytes(packed, scales.view(-1))
    check_scales(packed, *layout.packed_shape(*shape, num_bits)[0])
    scales = loopable(scales)
    points = scales.new_empty(0, 0) if zeros is None else zeros.to(scales.dtype).contiguous()
    return Planes(packed, scales, points, num_bits, shape[1])


def _tiles(
    packed: Tensor, scales: Tensor, zeros: Tensor | None, shape: tuple[int, int], grid: tuple[int, int]
) -> Tiles:
    count, columns, half = packed.shape
    if count * half * 2 != shape[0] or columns != shape[1]:
        raise BackendError("packed codes", value=list(packed.shape), limit=f"tiles of {list(shape)}")
    if scales.shape != (grid[1], grid[0], 2):
        check_scales(scales, *grid)
        scales, rest = tiles.grid_of(loopable(scales), zeros)
        return Tiles(packed, scales, rest if rest.numel() else None)
    return Tiles(packed, scales, zeros)
