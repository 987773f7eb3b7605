"""Operators of quantized layers, ``torch.ops.quantrecipe.*``: schema, shapes (fake), and their CPU implementations.

Import this package before calling them. CUDA implementations join where a GPU is: ``implement(name, "CUDA")``.
"""

from __future__ import annotations

from quantrecipe.kernels.cpu import eight_bit, quantize, weight_only
from quantrecipe.kernels.ops import fakes
from quantrecipe.kernels.ops.library import implement
from quantrecipe.kernels.ops.schemas import SCHEMAS

__all__ = ["SCHEMAS", "eight_bit", "fakes", "implement", "quantize", "weight_only"]
