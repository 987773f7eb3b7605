"""Modules made to see their inputs rounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from quantrecipe.plugins.native.methods.llm_int8 import decompose
from quantrecipe.plugins.native.rounding import Fixed, fake_quantize_inputs
from quantrecipe.plugins.native.straight_through import straight_through
from quantrecipe.schemes import QuantizationArgs


@dataclass(slots=True)
class Rounding:
    """How the inputs of one module are rounded. fixed: the scale, once it is found, where it is static."""

    args: QuantizationArgs
    fixed: Fixed | None = None

    @property
    def waits(self) -> bool:
        """Whether a static scale is still to be found; until then inputs pass as they are."""
        return not self.args.dynamic and self.fixed is None

    def apply(self, inputs: torch.Tensor, as_transformers: bool = False) -> torch.Tensor:
        """Inputs [..., K] as the module sees them."""
        if not inputs.numel():  # an expert that no token was sent to
            return inputs
        if self.args.outlier_threshold is not None:
            return decompose(inputs, self.args.outlier_threshold)
        return inputs if self.waits else fake_quantize_inputs(inputs, self.args, self.fixed, as_transformers)

    def tensors(self) -> Iterable[tuple[str, torch.Tensor]]:
        """What a checkpoint holds of a static scale: input_scale [1], and int8 input_zero_point where asymmetric.

        RPTQ's are [K]: one a channel, the same within a cluster.
        """
        if self.fixed is not None:
            yield "input_scale", self.fixed.scale.reshape(-1)
            if self.fixed.zero is not None:
                yield "input_zero_point", self.fixed.zero.reshape(-1).to(torch.int8)


def apply_scheme(module: nn.Module, rounding: Rounding, as_transformers: bool = False) -> RemovableHandle:
    """Make a module see its inputs rounded, until the handle's ``remove()``; gradients pass straight through."""

    def round_inputs(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        rounded = rounding.apply(args[0].detach(), as_transformers)
        return (straight_through(args[0], rounded), *args[1:])

    return module.register_forward_pre_hook(round_inputs)


@contextmanager
def quantized_inputs(pairs: Iterable[tuple[nn.Module, Rounding]], as_transformers: bool = False) -> Iterator[None]:
    """Within, these modules see their inputs rounded."""
    hooks = [apply_scheme(module, rounding, as_transformers) for module, rounding in pairs]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
