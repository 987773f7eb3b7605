"""Operators of quantized layers, ``torch.ops.quantrecipe.*``: schema, shapes (fake), CPU and CUDA implementations.

Import this package before calling them.
"""

from __future__ import annotations

from quantrecipe.kernels import cuda
from quantrecipe.kernels.cpu import eight_bit, quantize, weight_only
from quantrecipe.kernels.ops import fakes
from quantrecipe.kernels.ops.library import implement
from quantrecipe.kernels.ops.schemas import SCHEMAS

__all__ = ["SCHEMAS", "cuda", "eight_bit", "fakes", "implement", "quantize", "weight_only"]
