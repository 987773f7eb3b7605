"""Launchers of the CUDA kernels; each module enters its operators for CUDA tensors. Importing them needs no GPU."""

from __future__ import annotations

from quantrecipe.kernels.cuda import dequantize, eight_bit, gptq, loading, quantize, weight_only

__all__ = ["dequantize", "eight_bit", "gptq", "loading", "quantize", "weight_only"]
