"""Orthogonal matrices that spread every channel over all, applied as Kronecker factors.

QuaRot (Ashkboos et al., arXiv:2404.00456, section 3): a randomized Hadamard matrix Q = D H / sqrt(d) with D random
signs. Layers that take the mean off first (LayerNorm) need the all-ones direction kept: Q = H D H^T / d with D_00 = 1
and H's first column all ones does so, and is orthogonal as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch

from quantrecipe.plugins.native.transforms.hadamard_matrix import factor_matrix, factors


@dataclass(frozen=True, slots=True)
class Rotation:
    """Q [d, d]: ``right`` is x -> x Q. orders: Kronecker factors of H, () where Q is ``dense``."""

    signs: torch.Tensor
    orders: tuple[int, ...]
    keeps_mean: bool
    dense: torch.Tensor | None = None

    def right(self, x: torch.Tensor) -> torch.Tensor:
        """x Q for x [..., d], in fp32 or as x is where that is finer."""
        work = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
        if self.dense is not None:
            return work @ self.dense.to(work)
        signs = self.signs.to(work)
        if self.keeps_mean:
            return _hadamard(_hadamard(work, self.orders) * signs, self.orders, transpose=True)
        return _hadamard(work * signs, self.orders)

    def left(self, weight: torch.Tensor) -> torch.Tensor:
        """Q^T W for W [d, K], or Q^T b for b [d]: what a layer must become whose outputs are to be x Q."""
        return self.right(weight.t()).t() if weight.dim() == 2 else self.right(weight)


def make_rotation(size: int, keeps_mean: bool, seed: int) -> Rotation:
    """A rotation of ``size`` channels; where no Hadamard matrix of that order is at hand, a random orthogonal one."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (size,), generator=generator).float() * 2 - 1
    orders = factors(size)
    if orders is None:
        return Rotation(signs, (), keeps_mean, _random_orthogonal(size, keeps_mean, generator))
    if keeps_mean:
        signs[0] = 1.0
    return Rotation(signs, orders, keeps_mean)


def _hadamard(x: torch.Tensor, orders: tuple[int, ...], transpose: bool = False) -> torch.Tensor:
    """x (H_1 (x) H_2 …) / sqrt(d), or with every factor transposed."""
    shape = x.shape
    parts = x.reshape(-1, *orders)
    for axis, order in enumerate(orders, start=1):
        H = factor_matrix(order).to(x) / sqrt(order)
        parts = torch.tensordot(parts, H.t() if transpose else H, dims=([axis], [0])).movedim(-1, axis)
    return parts.reshape(shape)


def _random_orthogonal(size: int, keeps_mean: bool, generator: torch.Generator) -> torch.Tensor:
    """Haar-like by QR in fp64; with ``keeps_mean`` random only within the complement of the all-ones direction."""
    first = torch.eye(size, dtype=torch.float64)
    first[:, 0] = 1.0
    basis = torch.linalg.qr(first)[0]
    inner = size - 1 if keeps_mean else size
    q, r = torch.linalg.qr(torch.randn(inner, inner, dtype=torch.float64, generator=generator))
    inside = torch.eye(size, dtype=torch.float64)
    inside[-inner:, -inner:] = q * r.diagonal().sign()
    return basis @ inside @ basis.t() if keeps_mean else inside
