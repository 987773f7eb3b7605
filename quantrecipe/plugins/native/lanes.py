"""One forward pass that stops at every layer until all batches are there.

GPTQ needs a layer's inputs over all calibration text before it may quantize the layer, and the layer's
quantized outputs for what follows. Two passes over a block would do (as others do). Here each batch runs
as a coroutine (greenlet) that pauses in the pre-forward hook of each chosen layer; when all batches have
met there, the layer is quantized, and all go on through its new weights. Every activation is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import greenlet
import torch
from torch import nn


class Arrival(NamedTuple):
    """A batch that waits in front of a layer with its input [..., K]."""

    layer: str
    inputs: torch.Tensor


class Diverged(Exception):
    """The batches do not visit the same layers in the same order (routed experts)."""


class Lanes:
    """The batches of one block on their way through it together.

    run: computes the block for one batch. batches: emptied as the lanes take them over, to free memory.
    layers: where to wait. Use as a context manager; ``meetings`` yields until the block's end, after which
    ``outputs`` holds its results. Leaving early abandons the rest of the pass.
    """

    def __init__(
        self,
        run: Callable[[torch.Tensor], torch.Tensor],
        batches: list[torch.Tensor],
        layers: Mapping[str, nn.Module],
    ) -> None:
        self.outputs: list[torch.Tensor] = []
        self._lanes = [greenlet.greenlet(run) for _ in batches]
        self._entries = batches
        self._hooks = [
            module.register_forward_pre_hook(_pause_at(name), prepend=True) for name, module in layers.items()
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        for lane in self._lanes:
            if lane and not lane.dead:
                lane.throw(greenlet.GreenletExit)

    def meetings(self) -> Iterator[tuple[str, list[torch.Tensor]]]:
        """(layer, its input in each batch) whenever all batches have arrived. Raises Diverged."""
        states = [self._start(lane) for lane in self._lanes]
        while any(isinstance(state, Arrival) for state in states):
            layers = {state.layer if isinstance(state, Arrival) else None for state in states}
            if len(layers) > 1:
                raise Diverged
            yield layers.pop() or "", [state.inputs for state in states]
            states = [_resume(lane, states, index) for index, lane in enumerate(self._lanes)]
        self.outputs = states

    def _start(self, lane: Any) -> Any:
        return lane.switch(self._entries.pop(0))


def _resume(lane: Any, states: list[Any], index: int) -> Any:
    states[index] = None
    return lane.switch()


def _pause_at(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def pause(module: nn.Module, args: tuple[Any, ...]) -> None:
        parent = greenlet.getcurrent().parent
        if parent is not None:
            parent.switch(Arrival(name, args[0]))

    return pause
