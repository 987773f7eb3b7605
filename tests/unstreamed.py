"""Quantization of a whole model in memory, with nothing streamed: what the native backend is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from quantrecipe.modeling.experts import Experts, expert_layouts
from quantrecipe.modeling.plan import Plan
from quantrecipe.plugins.native.formats.base import Format
from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.layers import Layer, quantize_layer


def load_whole(folder: Path) -> Any:
    """The model as transformers loads it, its experts (stacked by the library) as plain Linear modules."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    for path, layout in expert_layouts(model).items():
        fused = model.get_submodule(path)
        whole = {name: parameter.data for name, parameter in fused.named_parameters()}
        experts = Experts(fused, layout)
        for _, index, leaf, kind in layout.parts(""):
            value = layout.cut(whole[layout.attribute(leaf, kind)][index], leaf).clone()
            setattr(experts[index].get_submodule(leaf), kind, nn.Parameter(value, requires_grad=False))
        model.set_submodule(path, experts)
    return model


def quantize_whole(folder: Path, plan: Plan, batches: list[torch.Tensor], form: Format) -> dict[str, torch.Tensor]:
    """Every quantized module's tensors, ``<module>.<suffix>``, by plain forward passes of the whole model.

    True-sequential: a pass finds the next module in the order of computation; it, and those with the very same
    input, are quantized, and the next pass goes through what they became.
    """
    model = load_whole(folder)
    storage = form.storage(model.dtype, model.dtype)
    waiting = {m.name: Layer(m, m.group, model.get_submodule(m.name)) for m in plan.quantized if m.group}
    found: dict[str, torch.Tensor] = {}
    while waiting:
        inputs = _first_inputs(model, waiting, batches) if any(one.wants_inputs for one in waiting.values()) else {}
        hessian = None
        if inputs:
            first = next(iter(inputs.values()))
            hessian = Hessian(first[0].shape[-1])
            for batch in first:
                hessian.add(batch)
        for name in list(inputs) or list(waiting):
            layer = waiting.pop(name)
            quantized, _ = quantize_layer(layer, storage, hessian, lambda _: None)
            found |= {f"{name}.{suffix}": tensor for suffix, tensor in form.tensors(quantized, False)}
    return found


def _first_inputs(
    model: Any, waiting: dict[str, Layer], batches: list[torch.Tensor]
) -> dict[str, list[torch.Tensor]]:
    """The inputs over all batches of the first module that is met, and of those that share them."""
    met: dict[str, list[torch.Tensor]] = {}
    hooks = [
        one.module.register_forward_pre_hook(lambda _, args, name=name: met.setdefault(name, []).append(args[0]))
        for name, one in waiting.items()
    ]
    for batch in batches:
        model(batch, use_cache=False)
    for hook in hooks:
        hook.remove()
    first = next(iter(met.values()))
    return {name: seen for name, seen in met.items() if all(a is b for a, b in zip(first, seen, strict=True))}
