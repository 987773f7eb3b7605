"""GLM-130B's weight quantization (Zeng et al., arXiv:2210.02414, section 4 and appendix): absmax rounding by rows."""

from __future__ import annotations

import torch

from quantrecipe.errors import BackendError
from quantrecipe.plugins.native.qparams import Grid, Quantized, Storage, quantize, stored_scale
from quantrecipe.schemes import QuantizationArgs


def glm_int4(weight: torch.Tensor, args: QuantizationArgs, storage: Storage) -> Quantized:
    """Quantize fp32 weight [N, K]: w_q = s round(w / s) with s = max|w| / (2^(b-1) - 1), one a row."""
    if args.type != "int" or args.strategy != "channel" or not args.symmetric:
        raise BackendError(
            "glm-int4 has symmetric integers with one scale a row", value=args.strategy, remedy="use scheme w4a16"
        )
    largest = weight.abs().amax(-1, keepdim=True)
    grid = Grid(stored_scale(largest / (2 ** (args.num_bits - 1) - 1), storage.scale_dtype), None)
    return Quantized(quantize(weight, grid, args.num_bits), grid, args)
