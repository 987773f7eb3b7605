"""A matrix as its reader took it apart (Decoded), made into a layer that keeps its codes; or why it cannot be."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from quantrecipe.kernels.ops.checks import WEIGHT_ONLY_BITS
from quantrecipe.kernels.ops.layouts import Weight
from quantrecipe.modeling.formats import Decoded
from quantrecipe.runtime.layers import OPS, Inputs, Path, QuantLinear

Tensor = torch.Tensor


@dataclass(frozen=True, slots=True)
class Target:
    """Where a layer will run. dtype: of its inputs."""

    device: torch.device
    dtype: torch.dtype


class NoKernel(Exception):
    """Why a matrix has no kernel; its weight is dequantized instead."""


def quant_linear(
    decoded: Decoded, num_bits: int, bias: Tensor | None, inputs: Inputs | None, target: Target
) -> QuantLinear:
    """The layer, its weight repacked once for ``target``. Raises NoKernel."""
    if decoded.book is not None:
        raise NoKernel("codes stand for a table of numbers, not for steps of a scale")
    if tuple(decoded.codes.shape) != decoded.shape or len(decoded.scale) != decoded.shape[0]:
        raise NoKernel("scales run over the ends of rows")
    order, decoded = in_order(decoded)
    if decoded.shape[1] % decoded.scale.shape[1]:
        raise NoKernel("groups of columns that are not all of one size")
    if decoded.codes.is_floating_point():
        layer = _float8(decoded, inputs, target)
    elif inputs is not None:
        layer = _int8(decoded, inputs, target)
    else:
        layer = _weight_only(decoded, num_bits, target)
    layer.order = order
    layer.inputs = None if inputs is None else inputs.on(target.device)
    layer.bias = None if bias is None else bias.to(target.dtype)
    return layer.to(target.device)


def in_order(decoded: Decoded) -> tuple[Tensor | None, Decoded]:
    """Columns sorted by their groups where they do not lie side by side. Raises NoKernel."""
    if decoded.groups is None:
        return None, decoded
    order = torch.argsort(decoded.groups, stable=True)
    sizes = torch.bincount(decoded.groups, minlength=decoded.scale.shape[1])
    if not bool((sizes == sizes[0]).all()):
        raise NoKernel("groups of columns that are not all of one size")
    sorted_codes = decoded.codes.view(torch.uint8)[:, order].view(decoded.codes.dtype)
    side_by_side = torch.equal(order, torch.arange(len(order)))
    return None if side_by_side else order, replace(decoded, codes=sorted_codes, groups=None)


def _float8(decoded: Decoded, inputs: Inputs | None, target: Target) -> QuantLinear:
    if target.device.type == "cuda":
        raise NoKernel("no float8 product on CUDA yet")
    if decoded.codes.dtype != torch.float8_e4m3fn or decoded.scale.shape[1] != 1:
        raise NoKernel("float8 other than e4m3 with one scale a row")
    if inputs is not None and inputs.kind != "fp8":
        raise NoKernel("float8 weights with integer inputs")
    layer = QuantLinear("fp8", "e4m3 weights with one scale a row", decoded.shape, 8)
    layer.weight, layer.scales = decoded.codes, decoded.scale.reshape(-1).float()
    return layer


def _int8(decoded: Decoded, inputs: Inputs, target: Target) -> QuantLinear:
    if target.device.type == "cuda" and (decoded.shape[1] % 16 or target.dtype == torch.float32):
        raise NoKernel("on CUDA an 8-bit product takes columns in multiples of 16, and gives 16 bits")
    signed = decoded.codes.dtype == torch.int8
    middle = 0 if signed else 128
    symmetric = decoded.zero is None if signed else _all_equal(decoded.zero, middle)
    if inputs.kind != "int8" or decoded.scale.shape[1] != 1 or not symmetric:
        raise NoKernel("8-bit inputs with weights that are not symmetric integers with one scale a row")
    codes = decoded.codes if signed else (decoded.codes.to(torch.int16) - middle).to(torch.int8)
    path: Path = "w8a8" if inputs.threshold is None else "llm-int8"
    layer = QuantLinear(path, "8-bit inputs and symmetric weights with one scale a row", decoded.shape, 8)
    layer.weight, layer.scales = codes, decoded.scale.reshape(-1).float()
    layer.sums = None if inputs.zero is None else codes.sum(1, dtype=torch.int32)
    return layer


def _weight_only(decoded: Decoded, num_bits: int, target: Target) -> QuantLinear:
    rows, groups = decoded.scale.shape
    codes, zero, bits = unsigned(decoded, num_bits)
    group_size = 0 if groups == 1 else decoded.shape[1] // groups
    scales = decoded.scale.to(_scale_dtype(decoded.scale.dtype, target)).contiguous()
    if zero is not None:
        zero = zero.expand(rows, groups).to(scales.dtype).contiguous()
    why = f"{bits}-bit integer weights, inputs in {str(target.dtype).removeprefix('torch.')}"
    layer = QuantLinear("weight-only", why, decoded.shape, bits, group_size)
    given = (one if one is None else one.to(target.device) for one in (codes, scales, zero))
    layer.weight, layer.scales, zeros = OPS.repack(*given, bits, group_size, target.dtype)
    layer.zeros = zeros if zeros.numel() else None
    layer.held_as = Weight(*decoded.shape, bits, group_size, target.dtype, scales.dtype, symmetric=zero is None)
    return layer


def unsigned(decoded: Decoded, num_bits: int) -> tuple[Tensor, Tensor | None, int]:
    """Codes uint8, zero points in their terms (fp32; None = 2^(b-1)), and the width of kernels that holds them."""
    signed = decoded.codes.dtype == torch.int8
    bits = next(width for width in WEIGHT_ONLY_BITS if width >= num_bits)
    if signed:
        low, high = int(decoded.codes.min()), int(decoded.codes.max())
        bits = bits if low >= -(2 ** (bits - 1)) and high < 2 ** (bits - 1) else 8  # OliVe's outliers
    shift = 2 ** (bits - 1) if signed else 0
    codes = (decoded.codes.to(torch.int16) + shift).to(torch.uint8) if signed else decoded.codes
    zero = torch.zeros(1, 1) if decoded.zero is None else decoded.zero.float()
    zero = zero + shift
    return codes, None if _all_equal(zero, 2 ** (bits - 1)) else zero, bits


def _all_equal(zero: Tensor | None, value: int) -> bool:
    return zero is not None and bool((zero == value).all())


def _scale_dtype(stored: torch.dtype, target: Target) -> torch.dtype:
    """Kernels take scales in the inputs' dtype; on CPU also in fp32, which holds fp16 exactly."""
    if target.device.type != "cpu":
        return target.dtype
    return stored if stored == torch.bfloat16 else torch.float32
