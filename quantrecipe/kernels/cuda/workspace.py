"""Memory that kernels need beside their operands: counters, zero before and after each launch, and partial sums."""

from __future__ import annotations

import torch

from quantrecipe.kernels.cuda.select import Tile

FEWEST = 1 << 16

_counters: dict[tuple[torch.device, int], torch.Tensor] = {}


def counters(device: torch.device, count: int) -> torch.Tensor:
    """int32 zeros, at least ``count``: one memory a stream, whose launches follow one another."""
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    held = _counters.get((device, stream))
    if held is None or len(held) < count:
        held = torch.zeros(max(count, FEWEST), dtype=torch.int32, device=device)
        _counters[device, stream] = held
    return held


def partial_sums(like: torch.Tensor, blocks: int, tile: Tile, dtype: torch.dtype) -> torch.Tensor:
    """Two tiles a block (csrc/stripes.cuh), by torch's allocator: freed in the stream's order, captured in graphs."""
    return torch.empty(2 * blocks * tile.rows * tile.outputs, dtype=dtype, device=like.device)
