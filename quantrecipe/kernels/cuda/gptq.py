"""GPTQ's inner loop on CUDA: the launcher of gptq_block."""

from __future__ import annotations

import ctypes

import torch

from quantrecipe.errors import BackendError
from quantrecipe.kernels.catalog import variant
from quantrecipe.kernels.cuda.launch import blocks, integer, launch, long_integer
from quantrecipe.kernels.ops.checks import check_bits
from quantrecipe.kernels.ops.library import implement

COLUMNS, WARPS, ROWS = 128, 8, 4  # csrc/gptq_block.cu


@implement("gptq_block", "CUDA")
def gptq_block(
    weight: torch.Tensor,
    factor: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor,
    groups: torch.Tensor,
    num_bits: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As ops/schemas.py; weight and factor may be slices, of which only the last dimension must be dense."""
    check_bits(num_bits)
    w, U = (_batched(part) for part in (weight, factor))
    layers, rows, columns = w.shape
    if columns > COLUMNS:
        raise BackendError("gptq_block takes one block of columns", value=columns, limit=f"at most {COLUMNS}")
    scales, zeros = (part.float().expand(*weight.shape[:-1], -1).contiguous() for part in (scales, zero_points))
    codes = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    errors = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
    strides = [long_integer(part.stride(dim)) for part in (w, U) for dim in (0, 1)]
    limits = (ctypes.c_float(-(2 ** (num_bits - 1))), ctypes.c_float(2 ** (num_bits - 1) - 1))
    launch(
        variant("gptq_block"), (blocks(rows, WARPS * ROWS), layers), 32 * WARPS, columns * COLUMNS * 4,
        w, *strides[:2], U, *strides[2:], scales, zeros, groups.contiguous(), codes, errors,
        *map(integer, (rows, columns, scales.shape[-1])), *limits,
    )  # fmt: skip
    return codes, errors


def _batched(part: torch.Tensor) -> torch.Tensor:
    """[B, rows, columns] with dense rows."""
    part = part if part.dim() == 3 else part.unsqueeze(0)
    return part if part.stride(2) == 1 else part.contiguous()
