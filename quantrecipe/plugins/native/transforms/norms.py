"""What a norm layer computes, found by trying it: y = (offset + w) x_hat + b."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class NormFacts:
    """size: channels K. offset: 0, or 1 where the gain is 1 + w (Gemma). has_bias: b is there.

    centered: the mean is taken off first (LayerNorm), so that x + c gives what x gives.
    """

    size: int
    offset: float
    has_bias: bool
    centered: bool


def is_norm(module: nn.Module) -> bool:
    """Whether a module could be a norm: nothing but a vector ``weight`` and perhaps a ``bias``, and no children."""
    names = {name for name, parameter in module._parameters.items() if parameter is not None}
    vectors = all(module._parameters[name].dim() == 1 for name in names)  # type: ignore[union-attr]
    return names in ({"weight"}, {"weight", "bias"}) and vectors and not list(module.children())


def norm_facts(module: nn.Module) -> NormFacts | None:
    """What this norm is; None where it is none: some other layer that owns a vector."""
    weight = module._parameters.get("weight")
    if weight is None or not is_norm(module):
        return None
    size = weight.numel()
    generator = torch.Generator().manual_seed(0)
    x, w, b = torch.rand(3, 4, size, generator=generator, dtype=torch.float64) + 0.5
    has_bias = module._parameters.get("bias") is not None
    zero = torch.zeros(size, dtype=torch.float64)
    try:
        bare = _apply(module, x, zero, zero)
        full = _apply(module, x, torch.ones_like(zero), zero)
        mixed = _apply(module, x, w[0], b[0])
        moved = _apply(module, x + 3.0, torch.ones_like(zero), zero)
    except (RuntimeError, TypeError, AttributeError):
        return None
    x_hat = full - bare
    offset = 0.0 if not bare.any() else 1.0
    expected = (offset + w[0]) * x_hat + (b[0] if has_bias else 0)
    fits = _close(bare, offset * x_hat) and _close(mixed, expected) and bool(x_hat.any())
    return NormFacts(size, offset, has_bias, _close(moved, full)) if fits else None


def _apply(module: nn.Module, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    trial = copy.copy(module)
    trial.__dict__ = {**module.__dict__, "_parameters": {"weight": nn.Parameter(weight, requires_grad=False)}}
    trial.__dict__.pop("forward", None)
    had = module._parameters.get("bias") is not None
    trial._parameters["bias"] = nn.Parameter(bias, requires_grad=False) if had else None
    output: torch.Tensor = trial(x)
    return output.double()


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal but for rounding in fp32, which some norms compute in whatever they are given."""
    return bool((one - other).abs().max() <= 1e-4 * (1 + other.abs().max()))
