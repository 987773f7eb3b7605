"""A linear layer with a frozen, rounded weight never held dequantized: QLoRA's storage type and compute type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class _Product(torch.autograd.Function):
    """x W^T with W dequantized for the product alone, once forward and once backward (QLoRA, equation 5)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: Callable[[], torch.Tensor]) -> torch.Tensor:
        ctx.weight = weight
        return x @ weight().t().to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0] @ ctx.weight().to(gradients[0].dtype), None


class FrozenLinear(nn.Linear):
    """The rounded weight of a linear layer. dequantize: gives [N, K]."""

    def __init__(self, layer: nn.Linear, dequantize: Callable[[], torch.Tensor]) -> None:
        nn.Module.__init__(self)  # a Linear's own would make a weight
        self.in_features, self.out_features, self.bias = layer.in_features, layer.out_features, layer.bias
        self.dequantize = dequantize

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """[N, K], dequantized now."""
        return self.dequantize()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x W^T + b, in the type of x, or of autocast."""
        kind = x.device.type
        x = x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x
        product: torch.Tensor = _Product.apply(x, self.dequantize)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias.to(product.dtype)
