"""Weights of 2 to 8 bits, inputs in 16 or 32: repack, linear_weight_only, dequantize on CPU."""

from __future__ import annotations

import torch

from quantrecipe.kernels.cpu import layout, loops
from quantrecipe.kernels.cpu.choice import LOOP_ROWS, chunk_rows
from quantrecipe.kernels.cpu.numbers import loopable, raw, use_threads
from quantrecipe.kernels.ops.checks import check_bits, check_codes, check_inputs, check_scales, group_count
from quantrecipe.kernels.ops.library import implement

Tensor = torch.Tensor


@implement("repack", "CPU")
def repack(codes: Tensor, num_bits: int) -> Tensor:
    """Into the CPU's layout."""
    check_bits(num_bits)
    check_codes(codes)
    return layout.pack(codes, num_bits)


@implement("repack_scales", "CPU")
def repack_scales(
    scales: Tensor, zero_points: Tensor | None, num_bits: int, group_size: int, in_features: int
) -> tuple[Tensor, Tensor]:
    """As they are."""
    check_scales(scales, len(scales), group_count(in_features, group_size))
    zeros = scales.new_empty(0) if zero_points is None else zero_points.to(scales.dtype).clone()
    return scales.clone(memory_format=torch.contiguous_format), zeros


@implement("linear_weight_only", "CPU")
def linear_weight_only(
    x: Tensor,
    packed: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    bias: Tensor | None,
    num_bits: int,
    group_size: int,
    out_features: int,
) -> Tensor:
    """By a compiled loop for few rows, else unpacked in chunks."""
    columns = x.shape[-1]
    check_packed(packed, scales, num_bits, group_size, out_features, columns)
    rows = x.reshape(-1, columns)
    grid = _grid(scales, zero_points)
    if len(rows) <= LOOP_ROWS["weight_only"]:
        found = _loop(rows, packed, grid, bias, num_bits)
    else:
        found = _chunks(rows, packed, grid, bias, num_bits)
    return found.to(x.dtype).view(*x.shape[:-1], out_features)


@implement("dequantize", "CPU")
def dequantize(
    packed: Tensor,
    scales: Tensor,
    zero_points: Tensor | None,
    num_bits: int,
    group_size: int,
    in_features: int,
    dtype: torch.dtype,
) -> Tensor:
    """[N, K]: (code - zero) * scale in fp32, rounded once."""
    check_packed(packed, scales, num_bits, group_size, len(packed), in_features)
    kind = dtype if dtype == torch.bfloat16 else torch.float32
    return _weight(packed, _grid(scales, zero_points), num_bits, in_features, kind).to(dtype)


def check_packed(packed: Tensor, scales: Tensor, num_bits: int, group_size: int, rows: int, columns: int) -> None:
    """Refuse what does not fit together, before a loop runs past its arrays."""
    check_bits(num_bits)
    check_scales(scales, rows, group_count(columns, group_size))
    shape, dtype = layout.packed_shape(rows, columns, num_bits)
    check_inputs(packed, shape[1])
    check_scales(packed, *shape)
    assert packed.dtype == dtype


def _grid(scales: Tensor, zeros: Tensor | None) -> tuple[Tensor, Tensor]:
    scales = loopable(scales)
    if zeros is None or not zeros.numel():
        return scales, scales.new_empty(0, 0)
    return scales, zeros.to(scales.dtype).contiguous()


def _loop(rows: Tensor, packed: Tensor, grid: tuple[Tensor, Tensor], bias: Tensor | None, num_bits: int) -> Tensor:
    rows = loopable(rows)
    out = rows.new_empty(len(rows), len(packed))
    added = rows.new_empty(0, dtype=torch.float32) if bias is None else bias.float()
    use_threads()
    loops.times_packed(raw(rows), raw(packed), raw(grid[0]), raw(grid[1]), raw(added), num_bits, raw(out))
    return out


def _chunks(rows: Tensor, packed: Tensor, grid: tuple[Tensor, Tensor], bias: Tensor | None, num_bits: int) -> Tensor:
    rows = loopable(rows)
    out, step = rows.new_empty(len(rows), len(packed)), chunk_rows(rows.shape[1])
    added = None if bias is None else bias.to(rows.dtype)
    scales, zeros = grid
    for a in range(0, len(packed), step):
        part = slice(a, a + step)
        weight = _weight(packed[part], (scales[part], zeros[part]), num_bits, rows.shape[1], rows.dtype)
        out[:, part] = torch.nn.functional.linear(rows, weight, None if added is None else added[part])
    return out


def _weight(packed: Tensor, grid: tuple[Tensor, Tensor], num_bits: int, columns: int, dtype: torch.dtype) -> Tensor:
    """[N, K] in bfloat16 or float32."""
    out = packed.new_empty(len(packed), columns, dtype=dtype)
    use_threads()
    loops.dequantize_rows(raw(packed), raw(grid[0]), raw(grid[1]), num_bits, raw(out))
    return out
