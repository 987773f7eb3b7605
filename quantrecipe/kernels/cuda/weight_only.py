"""linear_weight_only on CUDA: gemv_wNa16, gemm_wNa16, or dequantize and torch's product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear, pad

from quantrecipe.errors import BackendError
from quantrecipe.kernels.catalog import variant
from quantrecipe.kernels.cuda.dequantize import dequantize
from quantrecipe.kernels.cuda.groups import beside, has_reciprocal, reciprocal, unpacked
from quantrecipe.kernels.cuda.launch import integer, launch, scalar_name
from quantrecipe.kernels.cuda.layout import COLUMNS
from quantrecipe.kernels.cuda.select import GEMV_OUTPUTS, GEMV_WARPS, Pick, Tile, device_of, pick_weight_only
from quantrecipe.kernels.cuda.workspace import counters, partial_sums
from quantrecipe.kernels.ops.checks import check_bits, check_scales, group_count
from quantrecipe.kernels.ops.library import implement

Tensor = torch.Tensor
SIXTEEN_BITS = (torch.float16, torch.bfloat16)
GEMV_ROWS = 8


@implement("linear_weight_only", "CUDA")
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
    """As ops/schemas.py; kernels/cuda/select.py picks the kernel."""
    check_bits(num_bits)
    columns = x.shape[-1]
    check_scales(scales, out_features, group_count(columns, group_size))
    check_units(packed, columns)
    zeros = zero_points if zero_points is not None and zero_points.numel() else None
    product = Product(x.reshape(-1, columns), packed, scales, zeros, bias, num_bits, group_size)
    return product.multiply().view(*x.shape[:-1], out_features)


def check_units(packed: Tensor, columns: int) -> None:
    """Units that hold these columns."""
    if packed.shape[1] != -(-columns // COLUMNS):
        raise BackendError("inputs", value=f"{columns} columns", limit=f"a weight of {packed.shape[1]} units of 64")


@dataclass(frozen=True, slots=True)
class Product:
    """x [M, K] by a packed weight [N, K]. group_size 0: one group a row."""

    x: Tensor
    packed: Tensor
    scales: Tensor
    zeros: Tensor | None
    bias: Tensor | None
    num_bits: int
    group_size: int

    def multiply(self) -> Tensor:
        """[M, N] in x's dtype."""
        (m, k), n = self.x.shape, len(self.scales)
        if not m:
            return self.x.new_empty(0, n)
        if self.x.dtype not in SIXTEEN_BITS or not has_reciprocal(self.group_size, k):
            scales = self.scales.to(self.x.dtype)
            weight = unpacked(self.packed, scales, self.zeros, self.num_bits, k)
            return linear(self.x, weight, as_type(self.bias, self.x.dtype))
        pick = pick_weight_only(m, n, k, self.group_size, device_of(self.x.device))
        if pick.kernel == "dequantize":
            weight = dequantize(self.packed, self.scales, self.zeros, self.num_bits, self.group_size, k, self.x.dtype)
            return linear(self.x, weight, as_type(self.bias, self.x.dtype))
        return self._gemv(pick) if pick.tile is None else self._gemm(pick, pick.tile)

    def _gemv(self, pick: Pick) -> Tensor:
        x, (tiles, splits) = padded(self.x, COLUMNS), pick.grid
        y = x.new_empty(len(x), len(self.scales))
        sums = x.new_empty(tiles * splits * GEMV_OUTPUTS * GEMV_ROWS, dtype=torch.float32) if splits > 1 else None
        arrivals = counters(x.device, tiles) if splits > 1 else None
        kernel = variant("gemv_wNa16", **self._macros(), FINE=int(self.group_size % 16 != 0))
        launch(kernel, pick.grid, 32 * GEMV_WARPS, 0, *self._operands(x, y), sums, arrivals, *self._sizes(x))
        return y

    def _gemm(self, pick: Pick, tile: Tile) -> Tensor:
        x = padded(self.x, 8)
        y = x.new_empty(len(x), len(self.scales))
        sums = partial_sums(x, pick.grid[0], tile, torch.float32)
        arrivals = counters(x.device, tile.count(*y.shape))
        kernel, shared = variant("gemm_wNa16", **self._macros(), ROWS=tile.rows), tile.shared(16, self.num_bits)
        launch(kernel, pick.grid, tile.threads, shared, *self._operands(x, y), sums, arrivals, *self._sizes(x))
        return y

    def _macros(self) -> dict[str, str | int]:
        return {"SCALAR": scalar_name(self.x.dtype), "BITS": self.num_bits, "ZEROS": int(self.zeros is not None)}

    def _operands(self, x: Tensor, y: Tensor) -> tuple[Tensor | None, ...]:
        scales = self.scales.to(x.dtype)
        return x, self.packed, scales, beside(self.zeros, scales), as_type(self.bias, x.dtype), y

    def _sizes(self, x: Tensor) -> list[Any]:
        n, groups = self.scales.shape
        sizes = (len(x), n, x.shape[1], groups, reciprocal(self.group_size), *self.scales.stride())
        return [integer(size) for size in sizes]


def padded(x: Tensor, multiple: int) -> Tensor:
    """x with columns of zeros up to a multiple of ``multiple``: a copy where it lacks some."""
    spare = -x.shape[1] % multiple
    return pad(x, (0, spare)) if spare else x.contiguous()


def as_type(part: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Dense, in ``dtype``."""
    return None if part is None else part.to(dtype).contiguous()
