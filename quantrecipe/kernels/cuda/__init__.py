"""Launchers of the CUDA kernels; each module enters its operators for CUDA tensors. Importing them needs no GPU."""

from __future__ import annotations

from quantrecipe.kernels.cuda import dequantize, gptq, quantize

__all__ = ["dequantize", "gptq", "quantize"]
