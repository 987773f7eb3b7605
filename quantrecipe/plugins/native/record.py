"""What a layer lost."""

from __future__ import annotations

import torch

from quantrecipe.plugins.native.hessian import Hessian


def relative_error(weight: torch.Tensor, served: torch.Tensor) -> float:
    """||W - W_q||_F / ||W||_F; 0 for an empty weight."""
    return float((weight - served.float()).norm() / weight.norm().clamp_min(1e-30))


def output_error(weight: torch.Tensor, served: torch.Tensor, hessian: Hessian) -> float:
    """||X W^T - X W_q^T||_F / ||X W^T||_F from H = 2 X X^T / n alone: ||X D^T||^2 = tr(D H D^T) n / 2."""
    lost, whole = (hessian.energy(D) for D in (weight - served.float(), weight))
    return float((lost / max(whole, 1e-30)) ** 0.5)
