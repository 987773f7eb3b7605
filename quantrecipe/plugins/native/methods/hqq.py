"""HQQ, half-quadratic quantization (Badri and Shaji, mobiusml.github.io/hqq_blog, 2023): data-free.

It looks for the zero point that minimizes ||W - W_q||_p^p with p < 1, which forgives outliers. The split
    min over z, W_e of  ||W_e||_p^p + beta / 2 ||W_e - (W - Q_z^-1(Q_z(W)))||_2^2
is solved by turns: W_e by the generalized soft threshold (sub-problem 1), z by a mean (sub-problem 2), beta growing.
"""

from __future__ import annotations

import torch

from quantrecipe.plugins.native.qparams import Grid, Quantized, Storage, code_range, make_grid, quantize, spans
from quantrecipe.recipe_methods import HqqMethod
from quantrecipe.schemes import QuantizationArgs

#: Weights whose turns are taken together: what a turn computes of them stays in the cache.
TOGETHER = 2**15


def hqq(weight: torch.Tensor, args: QuantizationArgs, storage: Storage, method: HqqMethod) -> Quantized:
    """Quantize fp32 weight [N, K] on asymmetric grids whose zero points are solved for.

    The turns begin at the zero that puts the least weight on the lowest code, no whole number either: from a rounded
    one they end higher. Where the format takes whole zeros (all but our own layout), the solved one is rounded. It is
    kept for the spans where it lowers ||W - W_q||_p^p against the plain grid's.
    """
    start = make_grid(weight, args, storage)
    assert start.zero is not None
    W = spans(weight, args)
    scale, zero = start.scale.float().unsqueeze(-1), start.zero.float().unsqueeze(-1)
    first = code_range(args.num_bits)[0] - W.amin(-1, keepdim=True).clamp_(max=0) / scale
    solved = _stored(solve_zero(W, scale, first, args.num_bits, method), args.num_bits, storage)
    better = lp_error(W, scale, solved, args.num_bits, method.p) < lp_error(W, scale, zero, args.num_bits, method.p)
    kind = torch.int16 if storage.whole_zeros else storage.scale_dtype
    grid = Grid(start.scale, torch.where(better, solved, zero).squeeze(-1).to(kind))
    return Quantized(quantize(weight, grid, args.num_bits), grid, args)


def solve_zero(
    W: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int, method: HqqMethod
) -> torch.Tensor:
    """The real zero points [R, G, 1] of least ||W - W_q||_p^p met on the way from ``zero``.

    W: [R, G, weights of one scale]; scale, zero: [R, G, 1].
    """
    rows = max(1, TOGETHER // W[0].numel())
    parts = zip(torch.split(W / scale, rows), torch.split(scale, rows), torch.split(zero, rows), strict=True)
    return torch.cat([_turns(V, s, z, bits, method) for V, s, z in parts])


def _turns(V: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int, method: HqqMethod) -> torch.Tensor:
    """The turns, counted in steps of the grid: V = W / s, e = (W - W_q) / s."""
    low, high = code_range(bits)
    beta, best, least = method.beta, zero, torch.full_like(zero, torch.inf)
    for turn in range(method.iterations + 1):
        shifted = V + zero
        e = shifted.sub_(shifted.round().clamp_(low, high))
        size = e.abs()
        slope = size.clamp_min(1e-30).pow_(method.p - 1)
        loss = (size * slope).sum(-1, keepdim=True)
        best, least = torch.where(loss < least, zero, best), torch.minimum(loss, least)
        if turn == method.iterations:
            break
        # z = mean(Q - (W - W_e) / s) = z - mean(e - shrink(e))
        zero = zero - pulled(e, size, slope, scale.pow(method.p - 2) / beta).mean(-1, keepdim=True)
        beta *= method.kappa
    return best


def pulled(e: torch.Tensor, size: torch.Tensor, slope: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What the generalized soft threshold takes from e: sign(e) min(|e|, w |e|^(p-1)).

    size: |e|. slope: |e|^(p-1), overwritten. weight: w = s^(p-2) / beta where e is counted in steps of s.
    """
    return torch.minimum(size, slope.mul_(weight), out=slope).copysign_(e)


def lp_error(W: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int, p: float) -> torch.Tensor:
    """sum |w - w_q|^p of every span [R, G, 1]."""
    codes = torch.round(W / scale + zero).clamp_(*code_range(bits))
    return (W - (codes - zero) * scale).abs_().pow_(p).sum(-1, keepdim=True)


def _stored(zero: torch.Tensor, bits: int, storage: Storage) -> torch.Tensor:
    if not storage.whole_zeros:
        return zero.to(storage.scale_dtype).float()
    low, high = code_range(bits)
    return zero.round().clamp(low + storage.min_zero, high)
