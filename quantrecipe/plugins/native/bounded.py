"""GPTQ through one block with one batch in flight: for calibration text whose activations do not fit the memory.

The lanes (lanes.py) compute every activation once, but hold what each batch has computed inside the block. Here each
group of layers that share an input gets a pass of its own over the batches, which stops at that input: the same
sums in the same order, hence the same bytes, at the price of a forward pass a group (four in a Llama block).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.linear import columns_of
from quantrecipe.plugins.native.walk import Quantize, Run, _look_then_quantize

#: More inputs than this (routed experts) share one pass that looks at all layers as they are.
MOST_GROUPS = 16


class _Enough(Exception):
    """The layer that was waited for has been reached."""


def walk_bounded(
    run: Run,
    batches: Sequence[torch.Tensor],
    layers: Mapping[str, nn.Module],
    quantize: Quantize,
    outputs_wanted: bool = True,
) -> list[torch.Tensor]:
    """As ``walk_block``, without outputs: always []. batches are read one at a time, in order."""
    groups = groups_of(run, batches[0], layers) if layers else []
    if len(groups) > MOST_GROUPS:
        groups = []
    for group in groups:
        first = layers[group[0]]
        hessian = Hessian(columns_of(first), next(first.parameters()).device)
        for batch in batches:
            _run_until(run, batch, first, hessian)
        for name in group:
            quantize(name, hessian)
    done = {name for group in groups for name in group}
    left = {name: module for name, module in layers.items() if name not in done}
    if left:
        _look_then_quantize(run, batches, left, quantize)
    return []


def groups_of(run: Run, batch: torch.Tensor, layers: Mapping[str, nn.Module]) -> list[list[str]]:
    """The layers in the order that a batch reaches them; those that follow each other with one input are together."""
    arrivals: list[tuple[str, torch.Tensor]] = []

    def arrive(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda _, args: arrivals.append((name, args[0]))

    hooks = [module.register_forward_pre_hook(arrive(name), prepend=True) for name, module in layers.items()]
    try:
        run(batch)
    finally:
        _remove(hooks)
    groups: list[list[str]] = []
    before: torch.Tensor | None = None
    for name, inputs in arrivals:
        if any(name in group for group in groups):
            continue
        if inputs is before:
            groups[-1].append(name)
        else:
            groups.append([name])
        before = inputs
    return groups


def _run_until(run: Run, batch: torch.Tensor, layer: nn.Module, hessian: Hessian) -> None:
    def reached(_: nn.Module, args: tuple[Any, ...]) -> None:
        hessian.add(args[0])
        raise _Enough

    hook = layer.register_forward_pre_hook(reached, prepend=True)
    try:
        run(batch)
    except _Enough:
        pass
    finally:
        hook.remove()


def _remove(hooks: list[Any]) -> None:
    for hook in hooks:
        hook.remove()
