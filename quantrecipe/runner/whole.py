"""A model whole in memory, for what does not stream: generating text, timing, tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from quantrecipe.runner.meter import available_memory
from quantrecipe.runner.scorers import Loaded, Scorer, Streamed

#: Share of the free memory that a model may take, so that its activations fit beside it.
ROOM = 0.6


def fits(scorer: Scorer) -> bool:
    """Whether the model fits whole into the free memory."""
    free = available_memory()
    if free is None or not isinstance(scorer, Streamed):
        return True
    numbers = sum(parameter.numel() for parameter in scorer.skeleton.model.parameters())
    return bool(numbers * scorer.dtype.itemsize <= ROOM * free)


@contextmanager
def whole(scorer: Scorer) -> Iterator[Any]:
    """The scorer's model with all its weights; a streamed one gives them back at the end."""
    if isinstance(scorer, Loaded):
        yield scorer.model
        return
    assert isinstance(scorer, Streamed)
    scorer.skeleton.materialize("", scorer.dtype, scorer.device)
    model = scorer.skeleton.model
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(scorer.device)
    try:
        yield model
    finally:
        scorer.skeleton.release("")
