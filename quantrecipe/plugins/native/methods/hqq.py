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


def hqq(weight: torch.Tensor, args: QuantizationArgs, storage: Storage, method: HqqMethod) -> Quantized:
    """Quantize fp32 weight [N, K] on asymmetric grids whose zero points are solved for.

    The authors' zero points are no whole numbers. Where the format takes none (all but our own layout), the solved
    zero is rounded, and kept for the spans where even so it lowers ||W - W_q||_p^p against the plain grid's.
    """
    start = make_grid(weight, args, storage)
    assert start.zero is not None
    W = spans(weight, args)
    scale, zero = start.scale.float().unsqueeze(-1), start.zero.float().unsqueeze(-1)
    solved = _stored(solve_zero(W, scale, zero, args.num_bits, method), args.num_bits, storage)
    better = lp_error(W, scale, solved, args.num_bits, method.p) < lp_error(W, scale, zero, args.num_bits, method.p)
    kind = torch.int16 if storage.whole_zeros else storage.scale_dtype
    grid = Grid(start.scale, torch.where(better, solved, zero).squeeze(-1).to(kind))
    return Quantized(quantize(weight, grid, args.num_bits), grid, args)


def solve_zero(
    W: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int, method: HqqMethod
) -> torch.Tensor:
    """The best real zero points [R, G, 1] met on the way; W: [R, G, weights of one scale]; scale: [R, G, 1]."""
    beta, best, least = method.beta, zero, torch.full_like(zero, torch.inf)
    for _ in range(method.iterations):
        codes = _codes(W, scale, zero, bits)
        error = W - (codes - zero) * scale
        loss = error.abs().mean(-1, keepdim=True)
        best, least = torch.where(loss < least, zero, best), torch.minimum(loss, least)
        W_e = shrink(error, beta, method.p)
        zero = (codes - (W - W_e) / scale).mean(-1, keepdim=True)
        beta *= method.kappa
    return best


def shrink(x: torch.Tensor, beta: float, p: float) -> torch.Tensor:
    """Generalized soft threshold: sign(x) relu(|x| - |x|^(p-1) / beta)."""
    size = x.abs()
    return torch.sign(x) * (size - size.clamp_min(1e-30).pow(p - 1) / beta).clamp_min_(0)


def lp_error(W: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int, p: float) -> torch.Tensor:
    """sum |w - w_q|^p of every span [R, G, 1]."""
    return (W - (_codes(W, scale, zero, bits) - zero) * scale).abs().pow(p).sum(-1, keepdim=True)


def _codes(W: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int) -> torch.Tensor:
    return torch.round(W / scale + zero).clamp_(*code_range(bits))


def _stored(zero: torch.Tensor, bits: int, storage: Storage) -> torch.Tensor:
    if not storage.whole_zeros:
        return zero.to(storage.scale_dtype).float()
    low, high = code_range(bits)
    return zero.round().clamp(low + storage.min_zero, high)
