"""OliVe (Guo et al., arXiv:2304.07493): outlier-victim pairs at 4 bits, memory-aligned.

Neighbours (w_2i, w_2i+1) form a pair. Normal values are int4 in [-7, 7]; the code 1000 (-8) marks a victim
(section 3). Where a value lies beyond the threshold T its neighbour, the victim, is given up: it becomes 0 and its
code the mark, while the outlier is an abfloat E2M1 with bias 2 (section 4.2): (2 + mantissa) 2^(exponent + 2), that
is 12 … 96 in steps of the scale T / 7; codes 0000 and 1000 are unused. Of two outliers the larger is kept. T: the one
with the least squared error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quantrecipe.errors import BackendError
from quantrecipe.plugins.native.qparams import Storage, spans, stored_scale
from quantrecipe.recipe_methods import OliveMethod
from quantrecipe.schemes import QuantizationArgs

NORMAL = 7
VICTIM = 0b1000
#: Magnitude of abfloat code 1 to 7: exponent in bits 1 and 2, mantissa in bit 0.
ABFLOAT = tuple((2 + (code & 1)) << ((code >> 1) + 2) for code in range(1, 8))


@dataclass(frozen=True, slots=True)
class Pairs:
    """codes: uint8 [N, K], a nibble each. scale: [R, G] in the storage dtype."""

    codes: torch.Tensor
    scale: torch.Tensor
    args: QuantizationArgs

    @property
    def nbytes(self) -> int:
        """Bytes of nibbles and scales."""
        return self.codes.numel() // 2 + int(self.scale.nbytes)

    def served(self, storage: Storage, dtype: torch.dtype) -> torch.Tensor:
        """Decoded integers times scale, in the product dtype, then in ``dtype`` [N, K]."""
        product = storage.product_dtype
        whole = spans(decode(self.codes).to(product), self.args) * self.scale.to(product).unsqueeze(-1)
        return whole.view_as(self.codes).to(dtype)


def olive(weight: torch.Tensor, args: QuantizationArgs, storage: Storage, method: OliveMethod) -> Pairs:
    """Quantize fp32 weight [N, K], K even; a threshold for each scale from ``method.grid`` shares of max|w|."""
    size = args.group_size or weight.shape[1]
    if (args.type, args.num_bits, args.symmetric) != ("int", 4, True) or size % 2:
        raise BackendError("olive has symmetric 4-bit weights in pairs", value=args.num_bits, limit="even groups")
    parts = spans(weight, args)
    largest = parts.abs().amax(-1, keepdim=True)
    best, least = torch.ones_like(largest), torch.full_like(largest, torch.inf)
    for i in range(1, method.grid + 1):
        scale = stored_scale(largest * (i / method.grid / NORMAL), storage.scale_dtype).float()
        error = (nearest(parts / scale) * scale - parts).square().sum(-1, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    codes = encode(nearest(parts / best)).view_as(weight)
    return Pairs(codes, best.squeeze(-1).to(storage.scale_dtype), args)


def nearest(x: torch.Tensor) -> torch.Tensor:
    """The nearest representable numbers of x [..., even], in steps of the scale; victims become 0."""
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    size = pairs.abs()
    outlier = size.round() > NORMAL
    first = size[..., 0] >= size[..., 1]
    kept = torch.stack([first, ~first], -1) | ~outlier.any(-1, keepdim=True)
    table = torch.tensor(ABFLOAT, dtype=x.dtype, device=x.device)
    bounds = (table[1:] + table[:-1]) / 2
    large = table[torch.bucketize(size, bounds)] * pairs.sign()
    return torch.where(kept, torch.where(outlier, large, pairs.round()), 0).flatten(-2)


def encode(values: torch.Tensor) -> torch.Tensor:
    """Nibbles (uint8) of whole numbers that ``nearest`` gave."""
    pairs = values.reshape(*values.shape[:-1], -1, 2)
    size = pairs.abs()
    table = torch.tensor(ABFLOAT, dtype=values.dtype, device=values.device)
    outlier = size > NORMAL
    abfloat = torch.bucketize(size, table) + 1 + 8 * (pairs < 0)
    normal = pairs.to(torch.int64) & 0xF
    victim = outlier.any(-1, keepdim=True) & ~outlier
    codes = torch.where(outlier, abfloat, torch.where(victim, VICTIM, normal))
    return codes.flatten(-2).to(torch.uint8)


def decode(codes: torch.Tensor) -> torch.Tensor:
    """Whole numbers, int64, of nibbles [..., even]: a neighbour of the mark is an abfloat, the mark itself is 0."""
    pairs = codes.long().reshape(*codes.shape[:-1], -1, 2)
    victim = pairs == VICTIM
    normal = torch.where(pairs > NORMAL, pairs - 16, pairs)
    magnitude = torch.tensor((0, *ABFLOAT), device=codes.device)[pairs & 7]
    abfloat = torch.where(pairs > NORMAL, -magnitude, magnitude)
    values = torch.where(victim.flip(-1), abfloat, normal)
    return torch.where(victim, 0, values).flatten(-2)
