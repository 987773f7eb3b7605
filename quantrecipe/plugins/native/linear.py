"""Weights of nn.Linear [N, K] and of GPT-2's Conv1D [K, N], seen as [N, K]."""

from __future__ import annotations

import torch
from torch import nn

from quantrecipe.modeling.skeleton import is_transposed


def columns_of(module: nn.Module) -> int:
    """Inputs K of the module."""
    rows, columns = next(module.parameters()).shape
    return rows if is_transposed(module) else columns


def get_weight(module: nn.Module) -> torch.Tensor:
    """An fp32 copy of the weight, contiguous [N, K]."""
    weight: torch.Tensor = module.weight.detach()  # type: ignore[operator]
    if is_transposed(module):
        weight = weight.t()
    return weight.to(torch.float32, copy=True).contiguous()


def set_weight(module: nn.Module, weight: torch.Tensor) -> None:
    """Put [N, K] values in place, in the dtype the module has."""
    old = module.weight
    new = weight.t() if is_transposed(module) else weight
    module.weight = nn.Parameter(new.to(old.dtype).contiguous(), requires_grad=False)  # type: ignore[arg-type]
