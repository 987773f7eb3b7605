"""A quantized folder seen as plain weights, through the reader of its format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from quantrecipe.modeling.folder import ModelFolder, TensorInfo
from quantrecipe.modeling.formats import reader_of


class DequantizedFolder(ModelFolder):
    """A quantized folder whose packed modules read as ``<module>.weight``, dequantized when asked for.

    transposed: modules whose weight the model holds as [K, N] (Conv1D). product: the dtype that a loader computes in.
    """

    def __init__(self, path: Path, config: dict[str, Any], tensors: dict[str, TensorInfo]) -> None:
        self.stored = ModelFolder(path, config, dict(tensors))
        self.reader = reader_of(self.stored)
        super().__init__(path, config, tensors)
        self.product: torch.dtype | None = None
        self.transposed: set[str] = set()
        self.modules = set(self.reader.modules(self.stored))
        for module in self.modules:
            parts = self.reader.parts(self.stored, module)
            first = tensors[parts[0]]
            for part in parts:
                del tensors[part]
            tensors[f"{module}.weight"] = TensorInfo(f"{module}.weight", first.file, torch.float16, ())

    def tensor(self, name: str) -> torch.Tensor:
        """A plain tensor, or a dequantized weight."""
        if self.is_verbatim(name):
            return super().tensor(name)
        module = name.removesuffix(".weight")
        weight = self.reader.decode(self.stored, module).weight(self.product)
        return weight.t().contiguous() if module in self.transposed else weight

    def mapped(self, name: str) -> torch.Tensor:
        """A plain tensor as it lies in its file; what is computed lies in none."""
        return super().mapped(name) if self.is_verbatim(name) else self.tensor(name)

    def is_verbatim(self, name: str) -> bool:
        """Whether the tensor is stored as such."""
        module = name.removesuffix(".weight")
        return module not in self.modules or module == name
