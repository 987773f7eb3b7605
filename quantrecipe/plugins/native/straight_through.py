"""Rounding that gradients pass as if it were not there (Bengio et al., arXiv:1308.3432, section 4)."""

from __future__ import annotations

from typing import Any

import torch


class _StraightThrough(torch.autograd.Function):
    """Forward: the rounded values. Backward: the gradient by them, as the gradient by what was rounded."""

    @staticmethod
    def forward(_: Any, values: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        return rounded.view_as(rounded)

    @staticmethod
    def backward(_: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def straight_through(values: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """``rounded``, which must have no graph of its own; its gradient goes to ``values``, in the latter's dtype."""
    if not (torch.is_grad_enabled() and values.requires_grad):
        return rounded
    passed: torch.Tensor = _StraightThrough.apply(values.to(rounded.dtype), rounded)  # type: ignore[no-untyped-call]
    return passed
