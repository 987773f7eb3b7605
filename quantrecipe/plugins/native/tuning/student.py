"""A block whose matrices are learned through their rounding: fp32 weights, seen by the block as their codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from quantrecipe.modeling.skeleton import is_transposed
from quantrecipe.plugins.native.layers import Layer
from quantrecipe.plugins.native.linear import get_weight
from quantrecipe.plugins.native.methods.rtn import rtn
from quantrecipe.plugins.native.qparams import Matrix, Storage
from quantrecipe.plugins.native.straight_through import straight_through

Matrices = Mapping[str, Matrix]


class Student:
    """weights: fp32 [N, K] of each layer, by its name, that gradients reach."""

    def __init__(self, layers: Sequence[Layer], storage: Storage) -> None:
        self.layers = {layer.name: layer for layer in layers}
        self.storage = storage
        self.weights = {name: get_weight(layer.module).requires_grad_() for name, layer in self.layers.items()}

    def rounded(self) -> dict[str, Matrix]:
        """The weights as they are now, each to the nearest number of its type, scales found anew."""
        return {name: self._rounded(layer) for name, layer in self.layers.items()}

    def _rounded(self, layer: Layer) -> Matrix:
        return rtn(self.weights[layer.name].detach(), layer.group.weights, self.storage)

    def served(self, name: str, matrix: Matrix) -> torch.Tensor:
        """The weight [N, K] that a loader gives, in the dtype that the block computes in."""
        dtype: torch.dtype = self.layers[name].module._parameters["weight"].dtype  # type: ignore[union-attr]
        return matrix.served(self.storage, dtype)

    @contextmanager
    def shown(self, matrices: Matrices) -> Iterator[None]:
        """Within, the block computes with these matrices; what it learns of them reaches ``weights``."""
        modules = {name: layer.module for name, layer in self.layers.items()}
        try:
            for name, matrix in matrices.items():
                weight = straight_through(self.weights[name], self.served(name, matrix))
                show(modules[name], weight)
            yield
        finally:
            for module in modules.values():
                module.__dict__.pop("weight", None)


def show(module: nn.Module, weight: torch.Tensor) -> None:
    """Make a module compute with ``weight`` [N, K] in the place of its parameter, which stays (hidden) what it is."""
    module.__dict__["weight"] = weight.t() if is_transposed(module) else weight
