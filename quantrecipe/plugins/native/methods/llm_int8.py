"""LLM.int8() (Dettmers et al., arXiv:2208.07339): vector-wise int8 with outlier features left in 16 bits.

Section 3.1: one scale a row of X (a token) and one a row of W (an output). Section 3.2: feature dimensions in which
some input is at least alpha = 6.0 in size are taken out of the int8 product and multiplied in 16 bits,
    C = X_O W_O + s_x (X_int8 W_int8) s_w.
As in bitsandbytes the weights of the outlier features are the dequantized int8 ones, since it stores no others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quantrecipe.errors import BackendError
from quantrecipe.plugins.native.qparams import Storage
from quantrecipe.schemes import QuantizationArgs

LARGEST = 127


@dataclass(frozen=True, slots=True)
class VectorWise:
    """codes: int8 [N, K] in [-127, 127]. absmax: fp32 [N], bitsandbytes' SCB."""

    codes: torch.Tensor
    absmax: torch.Tensor
    args: QuantizationArgs

    @property
    def nbytes(self) -> int:
        """Bytes of codes and constants."""
        return int(self.codes.nbytes + self.absmax.nbytes)

    def served(self, storage: Storage, dtype: torch.dtype) -> torch.Tensor:
        """code absmax / 127 in fp32, then in ``dtype`` [N, K]."""
        return (self.codes * self.absmax.unsqueeze(-1) * (1 / LARGEST)).to(dtype)


def llm_int8(weight: torch.Tensor, args: QuantizationArgs) -> VectorWise:
    """Quantize fp32 weight [N, K] by rows: round(127 w / max|w|)."""
    if (args.type, args.num_bits, args.strategy, args.symmetric) != ("int", 8, "channel", True):
        raise BackendError("llm-int8 has symmetric 8-bit weights with one scale a row", remedy="use scheme w8a8")
    absmax = weight.abs().amax(-1)
    scale = torch.where(absmax == 0, 1.0, LARGEST / absmax)
    return VectorWise(torch.round(weight * scale.unsqueeze(-1)).to(torch.int8), absmax, args)


def decompose(inputs: torch.Tensor, threshold: float) -> torch.Tensor:
    """Inputs [..., K] as the product sees them: outlier features whole, the rest int8, one scale a token.

    A feature is an outlier where any of these inputs is at least ``threshold`` in size; as in bitsandbytes
    a token's scale comes from all its numbers below the threshold.
    """
    flat = inputs.reshape(-1, inputs.shape[-1])
    large = flat.abs() >= threshold
    scale = flat.masked_fill(large, 0).abs().amax(-1, keepdim=True).float() / LARGEST
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    rounded = (torch.round(flat.float() / scale) * scale).to(inputs.dtype)
    return torch.where(large.any(0), flat, rounded).view_as(inputs)
