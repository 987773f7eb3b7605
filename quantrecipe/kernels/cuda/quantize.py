"""Weights and inputs into codes: launchers of quantize_pack and quantize_activation."""

from __future__ import annotations

import torch

from quantrecipe.errors import BackendError
from quantrecipe.kernels.catalog import variant
from quantrecipe.kernels.cuda.launch import blocks, integer, launch, scalar_name
from quantrecipe.kernels.ops.checks import check_pack, group_count
from quantrecipe.kernels.ops.library import implement

TEAM_THREADS, CHUNK = 256, 8  # csrc/teams.cuh


@implement("quantize_pack", "CUDA")
def quantize_pack(
    weight: torch.Tensor, num_bits: int, group_size: int, symmetric: bool, kind: str = "int"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As ops/schemas.py. Raises BackendError where groups are no multiple of 8."""
    check_pack(num_bits, symmetric, kind)
    rows, columns = weight.shape
    groups = _groups(columns, group_size)
    weight = weight.contiguous()
    packed = _packed(weight, num_bits, kind)
    scales = weight.new_empty(rows, groups)
    zeros = torch.empty_like(scales) if not symmetric and kind == "int" else None
    team, held = team_of(columns // groups)
    macros = {"SCALAR": scalar_name(weight.dtype), "HELD": held, "BITS": num_bits if kind == "int" else 8}
    row_bytes = packed.shape[1] * packed.element_size()
    sizes = map(integer, (rows, columns, groups, team, int(is_aligned(weight)), row_bytes))
    kernel = variant("quantize_pack", FP8=int(kind == "fp8"), **macros)
    grid = (blocks(rows * groups * team, TEAM_THREADS),)
    launch(kernel, grid, TEAM_THREADS, 0, weight, packed, scales, zeros, *sizes)
    return packed, scales, weight.new_empty(0) if zeros is None else zeros


@implement("quantize_activation", "CUDA")
def quantize_activation(
    x: torch.Tensor, kind: str = "int8", group_size: int = 0, smooth: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ops/schemas.py. Raises BackendError where groups are no multiple of 8."""
    rows, columns = x.shape
    groups = _groups(columns, group_size)
    x = x.contiguous()
    factors = None if smooth is None else smooth.to(torch.float32).contiguous()
    q = x.new_empty(rows, columns, dtype=torch.int8 if kind == "int8" else torch.float8_e4m3fn)
    scales = x.new_empty(rows, groups, dtype=torch.float32)
    team, held = team_of(columns // groups)
    kernel = variant("quantize_activation", SCALAR=scalar_name(x.dtype), FP8=int(kind == "fp8"), HELD=held)
    sizes = map(integer, (rows, columns, groups, team, int(is_aligned(x))))
    launch(kernel, (blocks(rows * groups * team, TEAM_THREADS),), TEAM_THREADS, 0, x, factors, q, scales, *sizes)
    return q, scales


def _groups(columns: int, group_size: int) -> int:
    groups = group_count(columns, group_size)
    if groups > 1 and group_size % CHUNK:
        raise BackendError("group_size", value=group_size, limit="a multiple of 8 on CUDA", remedy="use the CPU")
    return groups


def _packed(weight: torch.Tensor, num_bits: int, kind: str) -> torch.Tensor:
    rows, columns = weight.shape
    if kind == "fp8":
        return weight.new_empty(rows, columns, dtype=torch.float8_e4m3fn)
    if num_bits == 8:
        return weight.new_empty(rows, columns, dtype=torch.int8)
    return weight.new_empty(rows, blocks(columns * num_bits, 32), dtype=torch.int32)


def team_of(size: int) -> tuple[int, int]:
    """(threads, chunks that each holds) for a group of ``size`` numbers."""
    chunks = blocks(size, CHUNK)
    if chunks <= 64:
        return 1 << (blocks(chunks, 2) - 1).bit_length(), 2
    return (32 if chunks <= 128 else TEAM_THREADS), 4


def is_aligned(matrix: torch.Tensor) -> bool:
    """Whether every row begins on 16 bytes."""
    return matrix.shape[1] % CHUNK == 0 and matrix.data_ptr() % 16 == 0
