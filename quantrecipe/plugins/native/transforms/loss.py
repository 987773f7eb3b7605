"""What a choice of scales would cost: the error of the outputs of all layers that share an input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from quantrecipe.plugins.native.methods.rtn import rtn
from quantrecipe.plugins.native.qparams import Storage
from quantrecipe.plugins.native.rounding import fake_quantize_inputs
from quantrecipe.recipe import Group

_STORAGE = Storage(torch.float32, torch.float32)


@dataclass(frozen=True, slots=True)
class Target:
    """A layer that will be quantized: its fp32 weight [N, K] as it is now, and how."""

    weight: torch.Tensor
    group: Group


def output_error(x: torch.Tensor, targets: Sequence[Target], s: torch.Tensor) -> float:
    """sum over layers of ||X W^T - Q(X / s) Q(W s)^T||_F^2 (AWQ's equation 4), inputs and weights as they will be.

    x: fp32 [T, K], already shifted where channels are shifted. s: [K].
    """
    total = 0.0
    for target in targets:
        smoothed, inputs = x / s, target.group.input_activations
        rounded = smoothed if inputs is None else fake_quantize_inputs(smoothed, inputs)
        weight = rtn(target.weight * s, target.group.weights, _STORAGE).served(_STORAGE, torch.float32)
        total += float((x @ target.weight.t() - rounded @ weight.t()).square().sum())
    return total
