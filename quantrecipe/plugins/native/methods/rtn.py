"""Round to nearest: each weight to the nearest number that its type has."""

from __future__ import annotations

import torch

from quantrecipe.plugins.native.methods.fp8 import DTYPES, fp8
from quantrecipe.plugins.native.methods.microscaling import fp4_scaled
from quantrecipe.plugins.native.methods.nf4 import TABLES, nf4
from quantrecipe.plugins.native.qparams import Matrix, Quantized, Storage, make_grid, quantize
from quantrecipe.schemes import QuantizationArgs


def rtn(weight: torch.Tensor, args: QuantizationArgs, storage: Storage) -> Matrix:
    """Quantize fp32 weight [N, K] without looking at activations."""
    if args.type in TABLES:
        return nf4(weight, args, storage.scale_dtype)
    if args.type == "float" and args.num_bits == 4:
        return fp4_scaled(weight, args)
    if args.type in DTYPES:
        return fp8(weight, args, storage)
    return rtn_integers(weight, args, storage)


def rtn_integers(weight: torch.Tensor, args: QuantizationArgs, storage: Storage) -> Quantized:
    """The same for integers."""
    grid = make_grid(weight, args, storage)
    return Quantized(quantize(weight, grid, args.num_bits), grid, args)
