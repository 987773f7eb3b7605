"""GPTQ through one decoder block: meet at each layer, quantize it, go on with what it became."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.lanes import Diverged, Lanes
from quantrecipe.plugins.native.linear import columns_of

Run = Callable[[torch.Tensor], torch.Tensor]
Quantize = Callable[[str, Hessian], None]
Walk = Callable[[Run, Sequence[torch.Tensor], Mapping[str, nn.Module], Quantize, bool], list[torch.Tensor]]


def walk_block(
    run: Run,
    batches: Sequence[torch.Tensor],
    layers: Mapping[str, nn.Module],
    quantize: Quantize,
    outputs_wanted: bool = True,
) -> list[torch.Tensor]:
    """The block's outputs after each of ``layers`` has been quantized on its inputs.

    True-sequential: a layer's Hessian comes from inputs that the layers before it, already quantized, gave.
    Layers that receive the very same tensors share one Hessian. Where batches take different ways
    through the block, what is left is done with a pass to look and a pass to go on.
    outputs_wanted: False leaves off behind the last layer and returns [].
    """
    if not layers and not outputs_wanted:
        return []
    left = dict(layers)
    kept = list(batches)
    try:
        with Lanes(run, list(batches), layers) as lanes:
            shared: tuple[list[torch.Tensor], Hessian] | None = None
            for name, inputs in lanes.meetings():
                if shared is None or not _same(shared[0], inputs):
                    shared = (inputs, _hessian(inputs))
                if name in left:
                    quantize(name, shared[1])
                    del left[name]
                if not left and not outputs_wanted:
                    return []
            del shared
        outputs = lanes.outputs
    except Diverged:
        outputs = []
    if left:
        _look_then_quantize(run, kept, left, quantize)
        outputs = []
    return outputs or [run(batch) for batch in kept]


def _same(before: list[torch.Tensor], now: list[torch.Tensor]) -> bool:
    return all(one is other for one, other in zip(before, now, strict=True))


def _hessian(inputs: list[torch.Tensor]) -> Hessian:
    hessian = Hessian(inputs[0].shape[-1], inputs[0].device)
    for batch in inputs:
        hessian.add(batch)
    return hessian


def _look_then_quantize(
    run: Run, batches: Sequence[torch.Tensor], layers: Mapping[str, nn.Module], quantize: Quantize
) -> None:
    """Collect every layer's Hessian in one pass through the block as it is, then quantize all."""
    devices = {name: next(module.parameters()).device for name, module in layers.items()}
    found = {name: Hessian(columns_of(module), devices[name]) for name, module in layers.items()}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, hessian=found[name]: hessian.add(args[0]), prepend=True)
        for name, module in layers.items()
    ]
    try:
        for batch in batches:
            run(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for name, hessian in found.items():
        quantize(name, hessian)
