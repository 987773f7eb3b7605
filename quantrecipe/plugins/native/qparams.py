"""Integer grids: scales and zero points, and the exact pair quantize / dequantize.

Codes are signed, q in [-2^(b-1), 2^(b-1) - 1], and stand for the weight (q - z) s, as in
compressed-tensors. W is [N, K] with N outputs; a scale serves ``K / G`` columns of one row, so scales are
[N, G]: G = 1 for one scale a row, [1, 1] for one scale a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from quantrecipe.errors import BackendError
from quantrecipe.schemes import QuantizationArgs

#: Weights of a matrix whose rows are worked on at once, 256 MB in fp32: few matrices have more.
SLICE = 2**26


@dataclass(frozen=True, slots=True)
class Storage:
    """How a format keeps its grids.

    scale_dtype: what a scale is rounded to before codes are chosen. product_dtype: what loaders multiply
    code and scale in. min_zero: the least zero point as an unsigned code (GPTQ v1 stores zero - 1, so 0
    would underflow). whole_zeros: zero points are codes; else any number, in the scale's dtype.
    """

    scale_dtype: torch.dtype
    product_dtype: torch.dtype
    min_zero: int = 0
    whole_zeros: bool = True


@dataclass(frozen=True, slots=True)
class Grid:
    """scale: [R, G] in the storage dtype, all positive. zero: [R, G], None = symmetric.

    zero: int16, signed; or in the scale's dtype where it need not be whole.
    """

    scale: torch.Tensor
    zero: torch.Tensor | None

    def floats(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero in fp32, one row for each of ``rows``."""
        scale = self.scale.float().expand(rows, -1)
        zero = torch.zeros_like(scale) if self.zero is None else self.zero.float().expand(rows, -1)
        return scale, zero

    def rows(self, start: int, count: int) -> Grid:
        """The grid of so many rows; the same where one scale serves all."""
        if len(self.scale) == 1:
            return self
        here = slice(start, start + count)
        return Grid(self.scale[here], None if self.zero is None else self.zero[here])


class Matrix(Protocol):
    """A quantized matrix [N, K], whatever its number type; formats know the types that they can hold."""

    @property
    def args(self) -> QuantizationArgs:
        """How its numbers are stored."""

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zero points, packed without gaps within a row."""

    def served(self, storage: Storage, dtype: torch.dtype) -> torch.Tensor:
        """The weight [N, K] that a loader gives: multiplied as the format's loaders do, then in ``dtype``."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """A matrix of integers. codes: int8 [N, K]."""

    codes: torch.Tensor
    grid: Grid
    args: QuantizationArgs

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zero points, packed without gaps within a row."""
        rows, columns = self.codes.shape
        words = rows * -(-columns * self.args.num_bits // 32)
        return words * 4 + self.grid.scale.nbytes + self._zero_bytes()

    def _zero_bytes(self) -> int:
        zero = self.grid.zero
        if zero is None:
            return 0
        return int(zero.nbytes) if zero.is_floating_point() else -(-zero.numel() * self.args.num_bits // 8)

    def served(self, storage: Storage, dtype: torch.dtype) -> torch.Tensor:
        """(q - z) s in the format's product dtype, then in ``dtype`` [N, K]."""
        found, start = self.codes.new_empty(self.codes.shape, dtype=dtype), 0
        for codes in row_slices(self.codes):
            grid = self.grid.rows(start, len(codes))
            found[start : start + len(codes)] = dequantize(codes, grid, storage.product_dtype)
            start += len(codes)
        return found


def row_slices(weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The rows of a weight [N, K] in slices of at most ``SLICE`` weights: what is computed of one is small."""
    return torch.split(weight, max(1, SLICE // weight.shape[1]))


def by_rows(work: Callable[[torch.Tensor], Matrix], weight: torch.Tensor, args: QuantizationArgs) -> Matrix:
    """``work`` on a weight [N, K], slice by slice where each row has scales of its own."""
    alone = args.type == "int" and args.strategy in ("channel", "group")
    return joined(map(work, row_slices(weight)), len(weight)) if alone else work(weight)


def joined(parts: Iterable[Matrix], rows: int) -> Matrix:
    """One matrix of ``rows`` rows from slices of them; no slice is held twice.

    Slices are of integers, each with a grid of its own; other numbers come whole.
    """
    codes, grids, start = torch.empty(0, dtype=torch.int8), list[Grid](), 0
    for part in parts:
        if not isinstance(part, Quantized) or len(part.codes) == rows:
            return part
        if not grids:
            codes = part.codes.new_empty(rows, part.codes.shape[1])
        codes[start : start + len(part.codes)] = part.codes
        start, args = start + len(part.codes), part.args
        grids.append(part.grid)
    zeros = [grid.zero for grid in grids if grid.zero is not None]
    whole = Grid(torch.cat([grid.scale for grid in grids]), torch.cat(zeros) if zeros else None)
    return Quantized(codes, whole, args)


def code_range(bits: int) -> tuple[int, int]:
    """The lowest and the highest signed code."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def make_grid(weight: torch.Tensor, args: QuantizationArgs, storage: Storage) -> Grid:
    """Scales (and zero points) that span the least and greatest weight that each serves.

    weight: fp32 [N, K]. Symmetric: s = max|w| / ((2^b - 1) / 2), so the greatest positive weight may be
    clipped by half a step (compressed-tensors' calculate_qparams). Asymmetric: s = (max - min) / (2^b - 1)
    with 0 inside the range. The zero point is taken from the rounded scale.
    Raises BackendError where a scale overflows its storage dtype.
    """
    parts = spans(weight, args)
    low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
    steps = 2**args.num_bits - 1
    extent = torch.maximum(-low, high) * 2 if args.symmetric else high - low
    scale = stored_scale(extent / steps, storage.scale_dtype)
    if args.symmetric:
        return Grid(scale, None)
    least, most = code_range(args.num_bits)
    zero = torch.round(least - low / scale.float()).clamp(least + storage.min_zero, most)
    return Grid(scale, zero.to(torch.int16))


def spans(weight: torch.Tensor, args: QuantizationArgs) -> torch.Tensor:
    """The weights as [R, G, weights of one scale]."""
    if args.strategy == "tensor":
        return weight.reshape(1, 1, -1)
    if args.strategy == "group" and args.group_size:
        return weight.reshape(len(weight), -1, args.group_size)
    return weight.unsqueeze(1)


def stored_scale(scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Rounded to the storage dtype. A zero (empty or tiny group) becomes eps, as compressed-tensors has it."""
    rounded = scale.to(dtype)
    if not torch.isfinite(rounded).all():
        raise BackendError(
            f"a scale overflows {str(dtype).removeprefix('torch.')}",
            value=float(scale.max()),
            limit=f"at most {torch.finfo(dtype).max:g}",
            remedy="use format compressed-tensors, which keeps scales in the model's dtype",
        )
    eps = torch.tensor(torch.finfo(dtype).eps, dtype=dtype, device=scale.device)
    return torch.where(rounded == 0, eps, rounded)


def quantize(weight: torch.Tensor, grid: Grid, bits: int) -> torch.Tensor:
    """Nearest codes, ties to even: int8 [N, K] of fp32 weight [N, K]."""
    low, high = code_range(bits)
    spread = weight.reshape(len(weight), grid.scale.shape[1], -1)
    scale, zero = grid.floats(grid.scale.shape[0])
    steps = spread / scale.unsqueeze(-1)
    whole = grid.zero is None or not grid.zero.is_floating_point()
    codes = torch.round(steps) + zero.unsqueeze(-1) if whole else torch.round(steps + zero.unsqueeze(-1))
    return codes.clamp_(low, high).flatten(1).to(torch.int8)


def dequantize(codes: torch.Tensor, grid: Grid, dtype: torch.dtype | None = None) -> torch.Tensor:
    """(q - z) s in ``dtype`` (None = the scale's) [N, K]: one rounding, as compressed-tensors' and GPTQ's loaders.

    q - z has at most 9 bits and a sign, hence is exact in fp16 and, being at most 255 in size, in bf16.
    """
    steps = codes.to(torch.int16).reshape(len(codes), grid.scale.shape[1], -1)
    if grid.zero is not None:
        zero = grid.zero.float() if grid.zero.is_floating_point() else grid.zero
        steps = steps - zero.unsqueeze(-1)
    scale = grid.scale.to(dtype or grid.scale.dtype)
    weight: torch.Tensor = (steps.to(scale.dtype) * scale.unsqueeze(-1)).flatten(1)
    return weight
