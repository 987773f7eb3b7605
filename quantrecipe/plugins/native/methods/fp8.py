"""FP8 weights (Micikevicius et al., arXiv:2209.05433): e4m3 (largest 448) and e5m2 (largest 57344), scaled.

A scale serves the whole tensor, a row, a group of a row, or a block of rows and columns, as in compressed-tensors'
float-quantized: s = max|w| / largest, w_q = s fp8(w / s), rounded to the nearest, ties to even.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quantrecipe.plugins.native.qparams import Storage, stored_scale
from quantrecipe.schemes import QuantizationArgs

#: By number type.
DTYPES = {"float": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


@dataclass(frozen=True, slots=True)
class Float8:
    """codes: fp8 [N, K]. scale: [R, G] in the storage dtype; each serves ceil(N / R) rows and ceil(K / G) columns."""

    codes: torch.Tensor
    scale: torch.Tensor
    args: QuantizationArgs

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales."""
        return int(self.codes.nbytes + self.scale.nbytes)

    def served(self, storage: Storage, dtype: torch.dtype) -> torch.Tensor:
        """Code times scale in the format's product dtype, then in ``dtype`` [N, K]."""
        spread = spread_scale(self.scale.to(storage.product_dtype), self.codes.shape, self.args)
        return (self.codes.to(storage.product_dtype) * spread).to(dtype)


def fp8(weight: torch.Tensor, args: QuantizationArgs, storage: Storage) -> Float8:
    """Quantize fp32 weight [N, K] to fp8 numbers with the scales that ``args.strategy`` asks for."""
    kind = DTYPES[args.type]
    largest = torch.finfo(kind).max
    scale = stored_scale(largest_of(weight, args) / largest, storage.scale_dtype)
    scaled = weight / spread_scale(scale.float(), weight.shape, args)
    return Float8(scaled.clamp_(-largest, largest).to(kind), scale, args)


def tile_of(shape: torch.Size, args: QuantizationArgs) -> tuple[int, int]:
    """(rows, columns) that one scale serves."""
    rows, columns = shape
    sizes = {"tensor": (rows, columns), "channel": (1, columns), "group": (1, args.group_size or columns)}
    return args.block_structure or sizes[args.strategy]


def largest_of(weight: torch.Tensor, args: QuantizationArgs) -> torch.Tensor:
    """max|w| of every tile [R, G]; tiles at the edges may be smaller."""
    height, width = tile_of(weight.shape, args)
    rows, columns = weight.shape
    padded = torch.nn.functional.pad(weight.abs(), (0, -columns % width, 0, -rows % height))
    tiles = padded.view(padded.shape[0] // height, height, padded.shape[1] // width, width)
    return tiles.amax(dim=(1, 3))


def spread_scale(scale: torch.Tensor, shape: torch.Size, args: QuantizationArgs) -> torch.Tensor:
    """Scales [R, G] as one a weight: [N, K], or what broadcasts to it."""
    height, width = tile_of(shape, args)
    rows = scale if len(scale) == 1 or height == 1 else scale.repeat_interleave(height, 0)[: shape[0]]
    return rows if scale.shape[1] == 1 else rows.repeat_interleave(width, 1)[:, : shape[1]]
