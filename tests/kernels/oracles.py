"""What the linear operators must give, in float64, from unpacked codes; shares nothing with kernels or CPU twins."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class Case:
    """A random quantized matrix. codes: unsigned int64 [N, K]; zeros: [N, G] or None = 2^(b-1)."""

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor | None
    bits: int

    def weight(self) -> torch.Tensor:
        """(code - zero) scale, float64 [N, K]."""
        size = self.codes.shape[1] // self.scales.shape[1]
        zeros = torch.full_like(self.scales, 2.0 ** (self.bits - 1)) if self.zeros is None else self.zeros
        spread = [part.double().repeat_interleave(size, 1) for part in (self.scales, zeros)]
        return (self.codes.double() - spread[1]) * spread[0]


def weight_only(x: torch.Tensor, case: Case, bias: torch.Tensor | None) -> torch.Tensor:
    """float64 [..., N]."""
    found = x.double() @ case.weight().t()
    return found if bias is None else found + bias.double()


def w8a8(
    q: torch.Tensor,
    x_scales: torch.Tensor,
    weight: torch.Tensor,
    w_scales: torch.Tensor,
    zeros: torch.Tensor | None = None,
) -> torch.Tensor:
    """float64 [M, N]: numbers first, then their product."""
    x = (q.double() - (0 if zeros is None else zeros.double().unsqueeze(1))) * x_scales.double().unsqueeze(1)
    return x @ (weight.double() * w_scales.double().unsqueeze(1)).t()


def w4a8(
    q: torch.Tensor, x_scales: torch.Tensor, codes: torch.Tensor, w_scales: torch.Tensor, groups: torch.Tensor | None
) -> torch.Tensor:
    """float64 [M, N]."""
    weight = codes.double() - 8
    if groups is not None:
        weight *= groups.double().repeat_interleave(codes.shape[1] // groups.shape[1], 1)
    return w8a8(q, x_scales, weight, w_scales)


def llm_int8(x: torch.Tensor, weight: torch.Tensor, w_scales: torch.Tensor, threshold: float) -> torch.Tensor:
    """float64 [M, N], column by column (arXiv:2208.07339, equation 8)."""
    dense, found = weight.double() * w_scales.double().unsqueeze(1), torch.zeros(len(x), len(weight)).double()
    below = torch.where(x.abs() < threshold, x, 0).double().abs().amax(1) / 127
    scale = torch.where(below == 0, 1.0, below)
    for k in range(x.shape[1]):
        column = x[:, k].double()
        if not bool((column.abs() >= threshold).any()):
            column = torch.round(column / scale) * scale
        found += torch.outer(column, dense[:, k])
    return found


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Norm of the difference over the norm of what is wanted; infinite where anything is not finite."""
    if not bool(torch.isfinite(found.double()).all()):
        return float("inf")
    return float((found.double() - wanted).norm() / wanted.norm())
