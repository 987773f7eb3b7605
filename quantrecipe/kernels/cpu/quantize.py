"""Rounding on CPU: quantize_pack, quantize_activation, gptq_block."""

from __future__ import annotations

import torch

from quantrecipe.errors import BackendError
from quantrecipe.kernels.cpu import byte_loops
from quantrecipe.kernels.cpu.choice import chunk_rows
from quantrecipe.kernels.cpu.numbers import loopable, raw, use_threads
from quantrecipe.kernels.gptq_block import quantize_columns
from quantrecipe.kernels.ops.checks import check_bits, check_pack, group_count
from quantrecipe.kernels.ops.library import implement
from quantrecipe.kernels.pack import pack_rows

Tensor = torch.Tensor
FP8 = torch.float8_e4m3fn
FP8_LARGEST = 448.0


@implement("quantize_pack", "CPU")
def quantize_pack(
    weight: Tensor, num_bits: int, group_size: int, symmetric: bool, kind: str = "int"
) -> tuple[Tensor, Tensor, Tensor]:
    """Scales that span the greatest weights, as compressed-tensors' calculate_qparams; codes to the nearest."""
    groups = group_count(weight.shape[1], group_size)
    check_pack(num_bits, symmetric, kind)
    parts = [
        _quantized(rows.float().view(len(rows), groups, -1), weight.dtype, num_bits, symmetric, kind)
        for rows in torch.split(weight.contiguous(), chunk_rows(weight.shape[1]))
    ]
    codes, scales = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    zeros = weight.new_empty(0) if symmetric else torch.cat([part[2] for part in parts])
    return codes if num_bits == 8 else _packed(codes, num_bits), scales, zeros


def _quantized(
    weight: Tensor, dtype: torch.dtype, num_bits: int, symmetric: bool, kind: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Of weight [N, G, g]: codes [N, K] (signed, or fp8), scales [N, G], zero points [N, G] in unsigned terms."""
    low, high = weight.amin(-1).clamp(max=0), weight.amax(-1).clamp(min=0)
    if kind == "fp8":
        scales = _stored(torch.maximum(-low, high) / FP8_LARGEST, dtype)
        codes = (weight / scales.float().unsqueeze(-1)).clamp_(-FP8_LARGEST, FP8_LARGEST).to(FP8)
        return codes.flatten(1), scales, scales
    least, most, steps = -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1, 2**num_bits - 1
    scales = _stored((torch.maximum(-low, high) * 2 if symmetric else high - low) / steps, dtype)
    zeros = torch.zeros_like(low)
    if not symmetric:
        zeros = torch.round(least - low / scales.float()).clamp_(least, most)
    codes = torch.round(weight / scales.float().unsqueeze(-1)) + zeros.unsqueeze(-1)
    return codes.clamp_(least, most).flatten(1).to(torch.int8), scales, (zeros - least).to(dtype)


def _stored(scales: Tensor, dtype: torch.dtype) -> Tensor:
    rounded = scales.to(dtype)
    return torch.where(rounded == 0, torch.finfo(dtype).eps, rounded)


def _packed(codes: Tensor, num_bits: int) -> Tensor:
    words = codes.new_empty(len(codes), -(-codes.shape[1] * num_bits // 32), dtype=torch.int32)
    pack_rows(raw(codes), num_bits, raw(words))
    return words


@implement("quantize_activation", "CPU")
def quantize_activation(
    x: Tensor, kind: str = "int8", group_size: int = 0, smooth: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """int8 by a compiled loop, fp8 by torch."""
    groups = group_count(x.shape[1], group_size)
    if kind == "int8":
        given = x.new_empty(0, dtype=torch.float32) if smooth is None else smooth.float().contiguous()
        codes = torch.empty_like(x, dtype=torch.int8, memory_format=torch.contiguous_format)
        scales = x.new_empty(len(x), groups, dtype=torch.float32)
        byte_loops.to_int8(raw(loopable(x)), raw(given), x.shape[1] // groups, raw(codes), raw(scales))
        return codes, scales
    if kind != "fp8":
        raise BackendError("quantize_activation", value=kind, limit="int8 or fp8")
    values = (x.float() if smooth is None else x.float() / smooth.float()).view(len(x), groups, -1)
    scales = _stored(values.abs().amax(-1) / FP8_LARGEST, torch.float32)
    return (values / scales.unsqueeze(-1)).clamp_(-FP8_LARGEST, FP8_LARGEST).to(FP8).flatten(1), scales


@implement("gptq_block", "CPU")
def gptq_block(
    weight: Tensor, factor: Tensor, scales: Tensor, zero_points: Tensor, groups: Tensor, num_bits: int
) -> tuple[Tensor, Tensor]:
    """Algorithm 1 of arXiv:2210.17323 over the columns given, layer after layer, rows in parallel."""
    check_bits(num_bits)
    codes, errors = torch.empty_like(weight, dtype=torch.int8), torch.empty_like(weight)
    low, high = float(-(2 ** (num_bits - 1))), float(2 ** (num_bits - 1) - 1)
    stacked = [
        one if one.dim() == 3 else one.unsqueeze(0) for one in (weight, factor, scales, zero_points, codes, errors)
    ]
    use_threads()
    for w, u, s, z, c, e in zip(*stacked, strict=True):
        matrix, upper, scale, zero, group = (raw(one.contiguous()) for one in (w, u, s, z, groups))
        quantize_columns(matrix, upper, 0, w.shape[1], scale, zero, group, low, high, raw(c), raw(e))
    return codes, errors
