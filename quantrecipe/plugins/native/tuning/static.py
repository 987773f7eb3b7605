"""Static scales of inputs for layers that are tuned together, from one pass over the calibration text."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch

from quantrecipe.plugins.native.layers import Layer
from quantrecipe.plugins.native.observers import Observed
from quantrecipe.plugins.native.stages import Block


def find_static_scales(block: Block, layers: Sequence[Layer], inputs: Sequence[torch.Tensor]) -> None:
    """Give every layer that waits for one a scale, from what it receives before the block's weights are rounded."""
    found = [(layer, layer.rounding, Observed()) for layer in layers if layer.rounding and layer.rounding.waits]
    if not found:
        return
    with ExitStack() as hooks:
        for layer, _, observed in found:
            handle = layer.module.register_forward_pre_hook(
                lambda _, args, observed=observed: observed.add(args[0]), prepend=True
            )
            hooks.callback(handle.remove)
        for hidden in inputs:
            block.run(hidden)
    for _, rounding, observed in found:
        if observed.low is not None:  # an expert may have seen no token
            rounding.fixed = observed.fixed(rounding.args, block.storage.scale_dtype)
