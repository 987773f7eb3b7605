"""AWQ's search for clipping (Lin et al., arXiv:2306.00978, section 4; AutoAWQ 0.2, ``_compute_best_clip``).

For each group the range is shrunk step by step, and the one with the least squared error of the group's part of the
output kept: sum over tokens of (x_g (w_g - w_q,g))^2 = d H_gg d^T / 2, with H the layer's Hessian 2 X X^T.
"""

from __future__ import annotations

import torch

from quantrecipe.plugins.native.qparams import Grid, Storage, dequantize, make_grid, quantize, spans
from quantrecipe.recipe_methods import AwqClipMethod
from quantrecipe.schemes import QuantizationArgs

#: AutoAWQ leaves queries and keys as they are: their errors meet in a product.
UNCLIPPED = ("q_", "k_", "query", "key", "Wqkv")


def clips(name: str) -> bool:
    """Whether the module of that name is clipped."""
    return not any(part in name.rpartition(".")[2] for part in UNCLIPPED)


def clipped_grid(
    weight: torch.Tensor, H: torch.Tensor, args: QuantizationArgs, storage: Storage, method: AwqClipMethod
) -> Grid:
    """The grid whose ranges, shrunk to 1 - i / grid for each group, lose least at the output."""
    best = make_grid(weight, args, storage)
    blocks = diagonal_blocks(H, best.scale.shape[1])
    least = output_errors(weight, best, args, blocks)
    largest = spans(weight, args).abs().amax(-1, keepdim=True)
    for i in range(1, int(method.max_shrink * method.grid)):
        limit = largest * (1 - i / method.grid)
        tried = make_grid(_clamped(weight, limit, args), args, storage)
        errors = output_errors(weight, tried, args, blocks)
        better = errors < least
        least = torch.where(better, errors, least)
        zero = None if best.zero is None or tried.zero is None else torch.where(better, tried.zero, best.zero)
        best = Grid(torch.where(better, tried.scale, best.scale), zero)
    return best


def diagonal_blocks(H: torch.Tensor, groups: int) -> torch.Tensor:
    """H_gg of every group [G, K / G, K / G]."""
    size = len(H) // groups
    return torch.stack([H[at : at + size, at : at + size] for at in range(0, len(H), size)])


def output_errors(weight: torch.Tensor, grid: Grid, args: QuantizationArgs, blocks: torch.Tensor) -> torch.Tensor:
    """d H_gg d^T of every row and group, as many as there are scales [R, G]."""
    codes = quantize(weight, grid, args.num_bits)
    lost = weight - dequantize(codes, grid, torch.float32)
    D = lost.view(len(weight), len(blocks), -1).transpose(0, 1)
    errors = (torch.bmm(D, blocks) * D).sum(-1).t()
    return errors if len(grid.scale) > 1 else errors.sum(0, keepdim=True)


def _clamped(weight: torch.Tensor, limit: torch.Tensor, args: QuantizationArgs) -> torch.Tensor:
    parts = spans(weight, args)
    return torch.minimum(torch.maximum(parts, -limit), limit).view_as(weight)
