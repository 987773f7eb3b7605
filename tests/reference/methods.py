"""HQQ, AWQ's clipping, FastGEMM's learned clipping and OliVe's threshold in float64, from their formulas alone.

One scale at a time, written apart from the package; torch only where autograd is the independent witness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from tests.reference.number_types import olive_pairs

Array = np.ndarray


def shrink(x: Array, beta: float, p: float) -> Array:
    """HQQ's sub-problem 1: the least |e|^p + beta / 2 (e - x)^2, as the authors' soft threshold has it."""
    size = np.abs(x)
    return np.sign(x) * np.maximum(size - np.where(size > 0, size, 1.0) ** (p - 1) / beta * (size > 0), 0)


@dataclass(frozen=True)
class HalfQuadratic:
    """HQQ's options; its authors' values."""

    p: float = 0.7
    beta: float = 10.0
    kappa: float = 1.01
    turns: int = 20


def hqq_zero(w: Array, scale: float, zero: float, bits: int, how: HalfQuadratic) -> tuple[float, float]:
    """HQQ's zero point of one span of weights [n]: half-quadratic turns, the one of least sum |W - W_q|^p; and that.

    W_q = (Q - z) s with Q = clip(round(W / s + z)); sub-problem 2: z = mean(Q - (W - W_e) / s); beta grows by kappa.
    """
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    beta, best, least = how.beta, zero, np.inf
    for _ in range(how.turns + 1):
        q = np.clip(np.round(w / scale + zero), low, high)
        rounded = (q - zero) * scale
        norm = float((np.abs(w - rounded) ** how.p).sum())
        if norm < least:
            best, least = zero, norm
        e = shrink(w - rounded, beta, how.p)
        zero = float(np.mean(q - (w - e) / scale))
        beta *= how.kappa
    return best, least


def asymmetric(w: Array, scale: float, zero: float, bits: int) -> Array:
    """Weights on an asymmetric grid, its zero point any number."""
    return (np.clip(np.round(w / scale + zero), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) - zero) * scale


def spanning(w: Array, bits: int) -> tuple[float, float]:
    """(scale, zero) of the asymmetric grid from least to greatest, 0 among them."""
    low, high = min(float(w.min()), 0.0), max(float(w.max()), 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, float(np.clip(np.round(-low / scale), 0, 2**bits - 1)) - 2 ** (bits - 1)


def awq_scale(w: Array, x: Array, bits: int, grid: int, max_shrink: float) -> float:
    """AWQ's clipping of one group: w [n], its inputs x [tokens, n]; the scale of the shrunk range that loses least.

    Loss: the squared error of the group's share of the output, sum over tokens (x . (w - w_q))^2, w_q being the
    clamped weights on the grid that their range gives, against the weights before they were clamped.
    """
    top, best, least = float(np.abs(w).max()), 0.0, np.inf
    for i in range(int(max_shrink * grid)):
        limit = top * (1 - i / grid)
        scale, zero = spanning(np.clip(w, -limit, limit), bits)
        q = np.clip(np.round(w / scale) + zero, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        lost = float(np.square(x @ (w - (q - zero) * scale)).sum())
        if lost < least:
            best, least = scale, lost
    return best


def learned_scales(w: torch.Tensor, h: torch.Tensor, groups: int, steps: int, rate: float) -> torch.Tensor:
    """FastGEMM's clipping of rows w [N, K], float64, by autograd: for every group the best scale [N, G] that is met.

    Four bits; s = sigmoid(theta) max|w| / 7.5, theta from 4; loss d h d^T of d = w_q - w, round() straight through.
    """
    parts = w.view(len(w), groups, -1)
    full = parts.abs().amax(-1) / 7.5
    theta = torch.full_like(full, 4.0, requires_grad=True)
    optimizer = torch.optim.Adam([theta], lr=rate, eps=1e-8)
    best, least = full, torch.full_like(full, torch.inf)
    for scale in [lambda: full, *[lambda: torch.sigmoid(theta) * full] * steps]:
        s = scale()
        u = parts / s.unsqueeze(-1)
        q = (u + (u.round() - u).detach()).clamp(-8, 7)
        d = (q * s.unsqueeze(-1)).flatten(1) - w
        lost = (d @ h * d).view_as(parts).sum(-1)
        better = lost.detach() < least
        best, least = torch.where(better, s.detach(), best), torch.where(better, lost.detach(), least)
        if s.requires_grad:
            optimizer.zero_grad()
            lost.sum().backward()
            optimizer.step()
    return best


def olive_threshold(w: Array, grid: int) -> tuple[float, Array]:
    """OliVe: (scale, weights) of one span, the threshold 7 s from ``grid`` shares of max|w| with the least error."""
    scales = [float(np.abs(w).max()) * i / grid / 7 for i in range(1, grid + 1)]
    tried = [olive_pairs((w / s)[None])[0] * s for s in scales]
    best = int(np.argmin([np.square(w - one).sum() for one in tried]))
    return scales[best], tried[best]
