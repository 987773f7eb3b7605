"""8-bit products on CUDA: linear_w8a8, linear_w4a8, linear_llm_int8."""

from __future__ import annotations

import ctypes

import torch

from quantrecipe.errors import BackendError
from quantrecipe.kernels.catalog import variant
from quantrecipe.kernels.cuda.groups import has_reciprocal, reciprocal
from quantrecipe.kernels.cuda.launch import integer, launch, scalar_name
from quantrecipe.kernels.cuda.select import W4A8, W8A8, Pick, Tile, device_of, pick_eight_bit
from quantrecipe.kernels.cuda.weight_only import SIXTEEN_BITS, as_type, check_units, padded
from quantrecipe.kernels.cuda.workspace import counters, partial_sums
from quantrecipe.kernels.ops.checks import check_inputs, group_count
from quantrecipe.kernels.ops.library import implement

Tensor = torch.Tensor
PIECE = 16  # bytes that cp.async copies: rows of int8 must start there
MOST_COLUMNS = 2**17  # 128 * 128 * 2^17 = 2^31: sums stay in int32 below it
QUANTIZE_THREADS = 256  # csrc/llm_int8.cu


@implement("linear_w8a8", "CUDA")
def linear_w8a8(
    q: Tensor,
    x_scales: Tensor,
    weight: Tensor,
    w_scales: Tensor,
    x_zero_points: Tensor | None,
    w_sums: Tensor | None,
    bias: Tensor | None,
    out_dtype: torch.dtype,
) -> Tensor:
    """As ops/schemas.py. Raises BackendError where K is no multiple of 16."""
    check_int8(q, weight, out_dtype)
    if x_zero_points is not None and w_sums is None:
        w_sums = weight.sum(1, dtype=torch.int32)
    pick, tile = picked(q, len(weight))
    y = torch.empty(len(q), len(weight), dtype=out_dtype, device=q.device)
    kernel = variant("gemm_w8a8", SCALAR=scalar_name(out_dtype), ROWS=tile.rows, OUTLIERS=0)
    scales = as_type(x_scales, torch.float32), as_type(w_scales, torch.float32)
    launch(
        kernel, pick.grid, tile.threads, tile.shared(8, 8), q.contiguous(), scales[0],
        as_type(x_zero_points, torch.int32), weight, scales[1], as_type(w_sums, torch.int32),
        as_type(bias, out_dtype), y, partial_sums(q, pick.grid[0], tile, torch.int32),
        counters(q.device, tile.count(*y.shape)), None, None, None,
        *map(integer, (*y.shape, q.shape[1])),
    )  # fmt: skip
    return y


@implement("linear_llm_int8", "CUDA")
def linear_llm_int8(x: Tensor, weight: Tensor, w_scales: Tensor, threshold: float, bias: Tensor | None) -> Tensor:
    """As ops/schemas.py, in two launches: codes and the list of columns, then both products."""
    check_int8(x, weight, x.dtype)
    x, (rows, columns) = x.contiguous(), x.shape
    pick, tile = picked(x, len(weight))
    y = x.new_empty(rows, len(weight))
    codes, x_scales = x.new_empty(rows, columns, dtype=torch.int8), x.new_empty(rows, dtype=torch.float32)
    listed, count = x.new_empty(columns, dtype=torch.int32), x.new_empty(1, dtype=torch.int32)
    tiles = tile.count(*y.shape)
    zeros = counters(x.device, max(tiles, columns + 1))
    launch(
        variant("llm_int8_quantize", SCALAR=scalar_name(x.dtype)), (rows,), QUANTIZE_THREADS, 0, x,
        ctypes.c_float(threshold), codes, x_scales, zeros[1:], zeros, listed, count, integer(columns),
    )  # fmt: skip
    launch(
        variant("gemm_w8a8", SCALAR=scalar_name(x.dtype), ROWS=tile.rows, OUTLIERS=1), pick.grid, tile.threads,
        tile.shared(8, 8), codes, x_scales, None, weight, as_type(w_scales, torch.float32), None,
        as_type(bias, x.dtype), y, partial_sums(x, pick.grid[0], tile, torch.float32), zeros, x, listed, count,
        *map(integer, (*y.shape, columns)),
    )  # fmt: skip
    return y


@implement("linear_w4a8", "CUDA")
def linear_w4a8(
    q: Tensor,
    x_scales: Tensor,
    packed: Tensor,
    w_scales: Tensor,
    group_scales: Tensor | None,
    bias: Tensor | None,
    group_size: int,
    out_dtype: torch.dtype,
) -> Tensor:
    """As ops/schemas.py. Raises BackendError where a group is no multiple of 16."""
    groups, n = group_count(q.shape[1], group_size), len(w_scales)
    check_units(packed, q.shape[1])
    check_types(q.shape[1], out_dtype)
    if group_scales is not None and groups > 1 and (group_size % 16 or not has_reciprocal(group_size, q.shape[1])):
        raise BackendError("group_size", value=group_size, limit="a multiple of 16 for linear_w4a8 on CUDA")
    x = padded(q, PIECE)
    pick = pick_eight_bit(W4A8, *(len(x), n, x.shape[1]), device_of(q.device))
    tile = pick.needed_tile
    y = torch.empty(len(x), n, dtype=out_dtype, device=q.device)
    strides = (0, 0) if group_scales is None else group_scales.stride()
    kernel = variant(
        "gemm_w4a8", SCALAR=scalar_name(out_dtype), GROUPED=int(group_scales is not None), ROWS=tile.rows
    )
    launch(
        kernel, pick.grid, tile.threads, tile.shared(8, 4), x, as_type(x_scales, torch.float32), packed,
        as_type(w_scales, torch.float32), group_scales, as_type(bias, out_dtype), y,
        partial_sums(x, pick.grid[0], tile, torch.int32), counters(x.device, tile.count(*y.shape)),
        *map(integer, (*y.shape, x.shape[1], groups, reciprocal(group_size if groups > 1 else 0), *strides)),
    )  # fmt: skip
    return y


def check_types(columns: int, out_dtype: torch.dtype) -> None:
    """What all 8-bit products ask for."""
    if out_dtype not in SIXTEEN_BITS:
        raise BackendError("out_dtype on CUDA", value=str(out_dtype), limit="torch.float16 or torch.bfloat16")
    if columns >= MOST_COLUMNS:
        raise BackendError(
            "columns of an 8-bit product", value=columns, limit=f"under {MOST_COLUMNS}: sums are int32"
        )


def check_int8(x: Tensor, weight: Tensor, out_dtype: torch.dtype) -> None:
    """An int8 weight whose rows begin where a copy of 16 bytes may."""
    columns = weight.shape[1]
    check_inputs(x, columns)
    check_types(columns, out_dtype)
    if columns % PIECE or not weight.is_contiguous():
        remedy = "pad the weight and x with zeros, or dequantize"
        raise BackendError(
            "columns of an int8 weight on CUDA", value=columns, limit="a multiple of 16", remedy=remedy
        )


def picked(x: Tensor, n: int) -> tuple[Pick, Tile]:
    """The tile for x [M, K] by an int8 weight of n rows."""
    rows, columns = x.shape
    pick = pick_eight_bit(W8A8, rows, n, columns, device_of(x.device))
    return pick, pick.needed_tile
