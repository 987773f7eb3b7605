"""FP4 e2m1 in small groups: MXFP4 (OCP Microscaling v1.0; arXiv:2310.10537) and NVFP4, as compressed-tensors 0.19.

MXFP4: 32 weights share a power of two, e8m0. NVFP4: 16 weights share an e4m3 scale, and the tensor an fp32
one, chosen so that the greatest scale is e4m3's greatest number: w = e2m1 code * scale / global.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quantrecipe.plugins.native.qparams import Storage
from quantrecipe.schemes import QuantizationArgs

#: e2m1 magnitudes by code; bit 3 is the sign.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
MX_GROUP, NV_GROUP = 32, 16
LARGEST, LARGEST_EXPONENT, LARGEST_SCALE = 6.0, 2, 448.0
BIAS = 127
TINY_SCALE = 0.125  # what compressed-tensors puts where an e4m3 scale would be 0


@dataclass(frozen=True, slots=True)
class Float4:
    """codes: uint8 [N, K], a nibble each. scale: e8m0 as uint8, or e4m3 [N, G]. whole: fp32 [1], NVFP4's global."""

    codes: torch.Tensor
    scale: torch.Tensor
    whole: torch.Tensor | None
    args: QuantizationArgs

    @property
    def nbytes(self) -> int:
        """Bytes of nibbles and scales."""
        return self.codes.numel() // 2 + self.scale.nbytes + (0 if self.whole is None else self.whole.nbytes)

    def served(self, storage: Storage, dtype: torch.dtype) -> torch.Tensor:
        """Code times scale, rounded to bf16 as the library unpacks it, then in ``dtype`` [N, K]."""
        magnitude = torch.tensor(E2M1, device=self.codes.device)[(self.codes & 7).long()]
        values = torch.where(self.codes > 7, -magnitude, magnitude).view(*self.scale.shape, -1)
        return (values * self._multiplier().unsqueeze(-1)).flatten(1).to(torch.bfloat16).to(dtype)

    def _multiplier(self) -> torch.Tensor:
        if self.whole is None:
            return torch.exp2(self.scale.float() - BIAS)
        return self.scale.float() / self.whole


def fp4_scaled(weight: torch.Tensor, args: QuantizationArgs) -> Float4:
    """Quantize fp32 weight [N, K] to e2m1: MXFP4 where the group is 32, NVFP4 where it is 16."""
    groups = weight.view(len(weight), -1, args.group_size or NV_GROUP)
    largest = groups.abs().amax(-1)
    if args.group_size == MX_GROUP:
        scale, whole = _power_of_two(largest), None
    else:
        whole = (LARGEST_SCALE * LARGEST / largest.max().clamp_min(torch.finfo(torch.float32).tiny)).reshape(1)
        whole = torch.where(torch.isfinite(whole), whole, 1.0)
        scale = (whole * (largest / LARGEST)).clamp(max=LARGEST_SCALE).to(torch.float8_e4m3fn)
        scale = torch.where(scale.float() == 0, TINY_SCALE, scale.float()).to(torch.float8_e4m3fn)
    empty = Float4(torch.empty(0, dtype=torch.uint8), scale, whole, args)
    ratio = groups / empty._multiplier().unsqueeze(-1)
    return Float4(nearest_codes(ratio).flatten(1), scale, whole, args)


def _power_of_two(largest: torch.Tensor) -> torch.Tensor:
    """The e8m0 scale: max|w| rounded up at a mantissa of 1.75 (so that it lies within 7 / 8 of 8 = 4 * 2), over 4."""
    mantissa, exponent = torch.frexp(largest)  # largest = mantissa 2^exponent, mantissa in [0.5, 1)
    power = exponent - 1 + (mantissa >= 0.875).int()
    biased = (power + BIAS - LARGEST_EXPONENT).clamp(1, 254)
    return torch.where(largest == 0, 1, biased).to(torch.uint8)


def nearest_codes(x: torch.Tensor) -> torch.Tensor:
    """uint8 e2m1 codes of the nearest numbers, ties to the even code, beyond 6 the greatest."""
    table = torch.tensor(E2M1, dtype=x.dtype, device=x.device)
    middle = (table[1:] + table[:-1]) / 2
    size = x.abs()
    up, down = torch.bucketize(size, middle, right=True), torch.bucketize(size, middle)
    codes = torch.where(up % 2 == 0, up, down)  # they differ on a middle only
    return (codes + 8 * (torch.signbit(x) & (codes > 0))).to(torch.uint8)
