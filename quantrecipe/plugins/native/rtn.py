"""Round to nearest: each weight to the nearest point of its grid."""

from __future__ import annotations

import torch

from quantrecipe.plugins.native.qparams import Quantized, Storage, make_grid, quantize
from quantrecipe.schemes import QuantizationArgs


def rtn(weight: torch.Tensor, args: QuantizationArgs, storage: Storage) -> Quantized:
    """Quantize fp32 weight [N, K] without looking at activations."""
    grid = make_grid(weight, args, storage)
    return Quantized(quantize(weight, grid, args.num_bits), grid, args)
