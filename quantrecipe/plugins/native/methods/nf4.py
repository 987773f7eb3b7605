"""NF4 and FP4 with double quantization (QLoRA, Dettmers et al., arXiv:2305.14314, sections 2 and 3; appendix E).

A weight, row after row, is cut into blocks of ``group_size``; each is divided by its greatest size c (absmax) and
every number becomes the index of the nearest point of a table of 16. Tables, block order and rounding are those of
bitsandbytes 0.50, so that its codes come out bit for bit; bitsandbytes itself is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quantrecipe.plugins.native.qparams import Storage
from quantrecipe.schemes import QuantizationArgs

#: Appendix E: quantiles of N(0, 1), scaled to [-1, 1], with an exact zero.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
#: bitsandbytes' FP4, in code order: bit 3 is the sign; magnitudes in units of 12.
FP4 = tuple(sign * magnitude / 12 for sign in (1, -1) for magnitude in (0, 0.0625, 8, 12, 4, 6, 2, 3))
TABLES = {"nf4": NF4, "fp4": FP4}
#: The greatest weights may share a scale in these numbers; what bitsandbytes' kernels take.
BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
TINY = 1e-38


@dataclass(frozen=True, slots=True)
class Nested:
    """Absmax constants that are quantized themselves (section 3, "double quantization").

    codes: uint8 [B], into ``dynamic_map()``. absmax: fp32 [ceil(B / block)]. offset: fp32 scalar, their mean.
    """

    codes: torch.Tensor
    absmax: torch.Tensor
    offset: torch.Tensor
    block: int

    def values(self) -> torch.Tensor:
        """The constants as a loader gets them, fp32 [B]."""
        scale = self.absmax.repeat_interleave(self.block)[: len(self.codes)]
        return dynamic_map(self.codes.device)[self.codes.long()] * scale + self.offset

    @property
    def nbytes(self) -> int:
        """Bytes of codes and constants."""
        return int(self.codes.nbytes + self.absmax.nbytes + 4)


@dataclass(frozen=True, slots=True)
class Codebook:
    """A matrix of table indices.

    codes: uint8 [N, K]. absmax: fp32 [B] of blocks along the flattened rows. dtype: what loaders round products to.
    """

    codes: torch.Tensor
    absmax: torch.Tensor | Nested
    args: QuantizationArgs
    dtype: torch.dtype = torch.float32

    @property
    def nbytes(self) -> int:
        """Bytes of codes and block constants; the table itself is the same for all."""
        return -(-self.codes.numel() // 2) + self.absmax.nbytes

    def served(self, storage: Storage, dtype: torch.dtype) -> torch.Tensor:
        """Table value times constant in fp32, rounded once to the stored dtype, then in ``dtype`` [N, K]."""
        constants = self.absmax.values() if isinstance(self.absmax, Nested) else self.absmax
        size = self.args.group_size or self.codes.numel()
        spread = constants.repeat_interleave(size)[: self.codes.numel()].view_as(self.codes)
        product = table(self.args.type, self.codes.device)[self.codes.long()] * spread
        return product.to(self.dtype).to(dtype)


def nf4(weight: torch.Tensor, args: QuantizationArgs, dtype: torch.dtype = torch.float32) -> Codebook:
    """Quantize fp32 weight [N, K] to the table that ``args.type`` names, ``args.group_size`` weights a constant.

    dtype: what loaders round products to.
    """
    size = args.group_size or 64
    values = table(args.type, weight.device)
    order = torch.argsort(values, stable=True)
    blocks, absmax = _normalized(weight.flatten(), size)
    codes = order[torch.bucketize(blocks.flatten()[: weight.numel()], _midpoints(values[order]))]
    constants = _nest(absmax, args.scale.group_size) if args.scale else absmax
    return Codebook(codes.to(torch.uint8).view_as(weight), constants, args, dtype)


def _normalized(flat: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks [B, size] divided by their absmax, the last filled up with zeros, and absmax [B]."""
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % size)).view(-1, size)
    absmax = padded.abs().amax(-1)
    return (padded * (1.0 / absmax.clamp(min=TINY)).unsqueeze(-1)).clamp_(-1, 1), absmax


def _midpoints(rising: torch.Tensor) -> torch.Tensor:
    return (rising[:-1] + rising[1:]) / 2


def _nest(absmax: torch.Tensor, size: int) -> Nested:
    offset = absmax.mean()
    blocks, scale = _normalized(absmax - offset, size)
    codes = torch.bucketize(blocks.flatten()[: len(absmax)], _midpoints(dynamic_map(absmax.device)))
    return Nested(codes.to(torch.uint8), scale, offset, size)


def table(kind: str, device: torch.device | str = "cpu") -> torch.Tensor:
    """fp32 [16], the number that each code stands for; ``fp4`` is divided by its greatest, as bitsandbytes does."""
    return torch.tensor(TABLES[kind], dtype=torch.float32, device=device)


def dynamic_map(device: torch.device | str = "cpu") -> torch.Tensor:
    """fp32 [256], rising: the signed dynamic type (Dettmers, arXiv:1511.04561) with 7 exponent bits.

    For each exponent i the middles of 2^i equal steps of [0.1, 1], times 10^(i - 6), with both signs; 0 and 1.
    """
    values = [0.0, 1.0]
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1, dtype=torch.float32)
        means = (10 ** (i - 6) * ((edges[:-1] + edges[1:]) / 2)).tolist()
        values += means + [-mean for mean in means]
    return torch.tensor(sorted(values), dtype=torch.float32, device=device)
