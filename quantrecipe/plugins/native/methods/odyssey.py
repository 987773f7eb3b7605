"""FastGEMM's recipe (Li et al., A Speed Odyssey for Deployable Quantization of LLMs, arXiv:2311.09550, sec. 4.2).

Symmetric learnable weight clipping, then GPTQ on the clipped grid. Each scale is s = gamma max|w| / ((2^b - 1) / 2);
gamma = sigmoid(theta) is learned by gradient on the layer's output error ||X W^T - X W_q^T||^2 = tr(D H D^T) / 2.
With round() differentiated straight through, dw_q / ds = q - [unclipped] w / s, so the gradient needs no graph.
"""

from __future__ import annotations

import torch

from quantrecipe.plugins.native.qparams import Grid, Storage, code_range, make_grid, spans, stored_scale
from quantrecipe.recipe_methods import OdysseyMethod
from quantrecipe.schemes import QuantizationArgs

#: theta at the start, as in OmniQuant, whose learned clipping this is without its lower bound: gamma = 0.982.
START = 4.0
BETAS, EPS = (0.9, 0.999), 1e-8


def learned_clipping(
    weight: torch.Tensor, H: torch.Tensor, args: QuantizationArgs, storage: Storage, method: OdysseyMethod
) -> Grid:
    """The grid after ``method.steps`` of Adam on theta, the best of those met for each scale."""
    full = make_grid(weight, args, storage).scale.float()
    theta = torch.full_like(full, START)
    moments = (torch.zeros_like(full), torch.zeros_like(full))
    best, least = full, lost_and_slope(weight, full, H, args)[0]
    for step in range(1, method.steps + 1):
        gamma = torch.sigmoid(theta)
        lost, slope = lost_and_slope(weight, gamma * full, H, args)
        best, least = torch.where(lost < least, gamma * full, best), torch.minimum(lost, least)
        theta = _adam(theta, slope * full * gamma * (1 - gamma), moments, step, method.learning_rate)
    return Grid(stored_scale(best, storage.scale_dtype), None)


def lost_and_slope(
    weight: torch.Tensor, scale: torch.Tensor, H: torch.Tensor, args: QuantizationArgs
) -> tuple[torch.Tensor, torch.Tensor]:
    """(D H D^T by rows and groups, its derivative by the scale), both [R, G], for scales [R, G]."""
    low, high = code_range(args.num_bits)
    ratio = spans(weight, args) / scale.unsqueeze(-1)
    codes = ratio.round().clamp(low, high)
    D = (codes * scale.unsqueeze(-1)).view_as(weight) - weight
    pull = D @ H
    inside = (ratio > low) & (ratio < high)
    lost = spans(pull * D, args).sum(-1)
    slope = 2 * (spans(pull, args) * torch.where(inside, codes - ratio, codes)).sum(-1)
    return lost, slope


def _adam(
    theta: torch.Tensor, gradient: torch.Tensor, moments: tuple[torch.Tensor, torch.Tensor], step: int, rate: float
) -> torch.Tensor:
    """One step of Adam (arXiv:1412.6980, algorithm 1); the moments are updated in place."""
    first, second = moments
    first.lerp_(gradient, 1 - BETAS[0])
    second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
    unbiased = second / (1 - BETAS[1] ** step)
    return theta - rate * first / (1 - BETAS[0] ** step) / (unbiased.sqrt() + EPS)
