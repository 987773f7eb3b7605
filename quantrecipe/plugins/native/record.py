"""What a layer lost."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.qparams import row_slices


def relative_error(weight: torch.Tensor, served: torch.Tensor) -> float:
    """||W - W_q||_F / ||W||_F; 0 for an empty weight."""
    lost = _root_of_squares([(W - Q.float()).norm() for W, Q in _slices(weight, served)])
    return lost / max(_root_of_squares([W.norm() for W in row_slices(weight)]), 1e-30)


def output_error(weight: torch.Tensor, served: torch.Tensor, hessian: Hessian) -> float:
    """||X W^T - X W_q^T||_F / ||X W^T||_F from H = 2 X X^T / n alone: ||X D^T||^2 = tr(D H D^T) n / 2."""
    lost = sum(hessian.energy(W - Q.float()) for W, Q in _slices(weight, served))
    whole = sum(hessian.energy(W) for W in row_slices(weight))
    return float((lost / max(whole, 1e-30)) ** 0.5)


def _slices(weight: torch.Tensor, served: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return zip(row_slices(weight), row_slices(served), strict=True)


def _root_of_squares(norms: list[torch.Tensor]) -> float:
    return float(torch.stack(norms).norm()) if len(norms) > 1 else float(norms[0])
