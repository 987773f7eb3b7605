"""Activations rounded on the fly: inputs of layers, keys and values. Operation for operation compressed-tensors'.

(calculate_qparams, then _quantize_dequantize, of compressed-tensors 0.19: bit-equal to it in every dtype.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quantrecipe.plugins.native.methods.fp8 import DTYPES
from quantrecipe.plugins.native.qparams import code_range
from quantrecipe.schemes import QuantizationArgs

Dims = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fixed:
    """A scale found on calibration text, and its zero point (None = symmetric); both broadcast over the values."""

    scale: torch.Tensor
    zero: torch.Tensor | None = None


def limits(args: QuantizationArgs) -> tuple[float, float]:
    """The least and greatest code."""
    if args.type in DTYPES:
        largest = torch.finfo(DTYPES[args.type]).max
        return -largest, largest
    low, high = code_range(args.num_bits)
    return float(low), float(high)


def scale_and_zero(low: torch.Tensor, high: torch.Tensor, args: QuantizationArgs) -> Fixed:
    """Scale and zero point that span [low, high], 0 inside, in their dtype; a scale of 0 becomes eps."""
    least, most = limits(args)
    low, high = low.clamp(max=0), high.clamp(min=0)
    steps = most - least
    scale = torch.maximum(-low, high) / (steps / 2) if args.symmetric else (high - low) / steps
    zero = None
    if not args.symmetric:
        zero = (least - low / scale).nan_to_num(0.0).clamp(least, most).round()
    eps = torch.finfo(scale.dtype).eps
    return Fixed(torch.where(scale == 0, torch.full_like(scale, eps), scale), zero)


def dynamic(values: torch.Tensor, args: QuantizationArgs, dims: Dims) -> Fixed:
    """The scale of these very values, one for all that lie along ``dims``."""
    return scale_and_zero(values.amin(dims, keepdim=True), values.amax(dims, keepdim=True), args)


def fake_quantize(values: torch.Tensor, args: QuantizationArgs, fixed: Fixed) -> torch.Tensor:
    """Values as their codes stand for them, in their own dtype."""
    return from_codes(to_codes(values, args, fixed), fixed, values.dtype)


def to_codes(values: torch.Tensor, args: QuantizationArgs, fixed: Fixed) -> torch.Tensor:
    """Codes: float8, or whole numbers in the values' dtype."""
    scaled = values / fixed.scale.to(values)
    if fixed.zero is not None:
        scaled += fixed.zero.to(values)
    scaled = scaled.clamp_(*limits(args))
    return scaled.to(DTYPES[args.type]) if args.type in DTYPES else scaled.round_()


def from_codes(codes: torch.Tensor, fixed: Fixed, dtype: torch.dtype) -> torch.Tensor:
    """What codes stand for, in ``dtype``; codes that are in it already are written over."""
    found = codes.to(dtype)
    if fixed.zero is not None:
        found = found - fixed.zero.to(found)
    return found.mul_(fixed.scale.to(found))


def in_groups(values: torch.Tensor, args: QuantizationArgs) -> torch.Tensor:
    """Values with the last dimension cut into groups where ``args`` has them."""
    return values.reshape(*values.shape[:-1], -1, args.group_size or 1) if args.strategy == "group" else values


def fake_quantize_inputs(
    inputs: torch.Tensor, args: QuantizationArgs, fixed: Fixed | None = None, as_transformers: bool = False
) -> torch.Tensor:
    """Inputs [..., K] of a layer, rounded: one scale a token, a group of a token's channels, or a tensor.

    fixed: the static scale. A dynamic scale a tensor is taken over each window [length, K] of a batch, so that the
    result does not depend on how windows are batched. as_transformers: over the whole tensor instead, as the library
    does, and also for tokens where inputs are flattened [tokens, K] (OPT's MLP); engines take one a token.
    """
    values = in_groups(inputs, args)
    if fixed is None:
        fixed = dynamic(values, args, _input_dims(values, args, as_transformers))
    rounded = fake_quantize(values, args, fixed)
    return rounded.flatten(-2) if args.strategy == "group" else rounded


def _input_dims(values: torch.Tensor, args: QuantizationArgs, as_transformers: bool) -> Dims:
    every = tuple(range(values.dim()))
    if args.strategy == "group":
        return (-1,)
    if args.strategy == "tensor":
        return every if as_transformers or values.dim() < 3 else every[1:]
    return every if as_transformers and values.dim() < 3 else (-1,)
