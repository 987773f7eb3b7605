"""The factor of the inverse Hessian that GPTQ works with, and the order in which it takes columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from quantrecipe.errors import BackendError
from quantrecipe.plugins.native.triangular import cholesky_, invert_lower_, mirror_, reverse_
from quantrecipe.recipe import GptqMethod
from quantrecipe.schemes import QuantizationArgs

MAX_DAMPENING = 1e4


@dataclass(frozen=True, slots=True)
class Setting:
    """What a factor depends on beside H. group_size: of the groups that stay together; None = any column may move."""

    dampening: float
    sorts: bool
    group_size: int | None = None

    @classmethod
    def of(cls, method: GptqMethod, args: QuantizationArgs) -> Setting:
        """What a recipe's method asks for; where one scale serves a row, nothing need stay together."""
        together = method.actorder == "group_aware" and args.strategy == "group"
        return cls(method.dampening_frac, method.actorder is not None, args.group_size if together else None)


@dataclass(frozen=True, slots=True)
class Factor:
    """U: in its upper triangle, H^-1 = U^T U, rows and columns in ``order`` (None = as they are).

    Below U's diagonal lies what is left of H. dampening: the share of the mean diagonal that was added at last.
    dead: columns whose input was always 0. group_size: see Setting.
    """

    U: torch.Tensor
    order: torch.Tensor | None
    dampening: float
    dead: int
    group_size: int | None = None


def column_order(diagonal: torch.Tensor, setting: Setting) -> torch.Tensor | None:
    """The columns in the order in which GPTQ takes them, int64 [K]; None = as they are.

    By falling diagonal of H (act-order); with groups that stay together (Gafni et al., arXiv:2505.14638, group-aware
    reordering): groups by their greatest diagonal, falling, and within each its columns likewise.
    """
    if not setting.sorts:
        return None
    size = setting.group_size or len(diagonal)
    groups = diagonal.reshape(-1, size)
    within = torch.argsort(groups, dim=1, descending=True, stable=True)
    first = torch.argsort(groups.amax(1), descending=True, stable=True)
    columns = within + size * torch.arange(len(groups), device=diagonal.device).unsqueeze(1)
    return columns[first].flatten()


def factorize_(
    H: torch.Tensor, diagonal: torch.Tensor, dampening: float, name: str, note: Callable[[str], None]
) -> float:
    """Put U with (H + dampening)^-1 = U^T U into the upper triangle of H; the dampening that it took.

    H: symmetric [K, K]; its strict upper triangle moves to the strict lower one. diagonal: [K], in H's order.
    With J the reversal of rows and columns and J H J = L L^T, R = J L J is upper triangular and H = R R^T, so
    U = R^-1 = J L^-1 J: the paper's Cholesky factor of H^-1 (arXiv:2210.17323, section 3.3, step 3), without
    forming H^-1. Where H is not positive definite, what is added to the diagonal is raised tenfold.
    """
    reverse_(H)
    backwards, mean, share = diagonal.flip(0), diagonal.mean(), dampening
    while True:
        H.diagonal().copy_(backwards + share * mean)
        if cholesky_(H):
            break
        share *= 10
        if share > MAX_DAMPENING:
            raise BackendError(f"the Hessian of {name} has no Cholesky factor", remedy="use method rtn for it")
        note(f"{name}: Hessian not positive definite, dampening raised to {share:g}")
        mirror_(H, lower=False)
    invert_lower_(H)
    reverse_(H)
    return share
