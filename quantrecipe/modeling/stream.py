"""Hidden states that flow through a model one decoder block at a time, for any architecture.

The model's own forward prepares what each block receives (masks, positions, rotary tables): it is run
once with every block replaced by a recorder. Afterwards each block is called by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from quantrecipe.errors import ModelError
from quantrecipe.modeling.skeleton import Skeleton


class _Stop(Exception):
    """Raised by the first block once its input is known."""


class Stream:
    """A set of token windows on its way through the blocks.

    tokens: int64 [windows, length] on the CPU, all of one length. batch_size: windows a batch.
    dtype: what blocks compute in; None = as stored, but fp32 for fp16 weights on a CPU, where fp16
    products are slow.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        tokens: torch.Tensor,
        batch_size: int = 8,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
    ) -> None:
        self.skeleton, self.device = skeleton, device
        self.dtype = dtype or compute_dtype(skeleton.dtype, device)
        self.batches: list[torch.Tensor] = list(torch.split(tokens, batch_size))
        self._calls: dict[int, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
        self._returns_tuple = False

    def enter(self, loaded: bool = False) -> list[torch.Tensor]:
        """The input of the first block, [batch, length, hidden] a batch; loads what lies outside the blocks.

        loaded: that is loaded already, and stays as it is.
        """
        if not loaded:
            self.skeleton.materialize_outside(self.dtype, self.device)
        self._move_buffers()
        self._learn_output_type()
        for batch in self.batches:
            if len(batch) not in self._calls:
                self._calls[len(batch)] = self._record(batch)
        return [self._embed(batch) for batch in self.batches]

    def _move_buffers(self) -> None:
        for module in self.skeleton.model.modules():
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.to(self.device)

    def call(self, index: int, hidden: torch.Tensor) -> torch.Tensor:
        """Run the (materialized) block ``index`` on one batch [batch, length, hidden]."""
        args, kwargs = self._calls[len(hidden)][index]
        block = self.skeleton.blocks[index].module
        output = type(block).forward(block, hidden, *args, **kwargs)
        result: torch.Tensor = output[0] if isinstance(output, tuple) else output
        return result

    def logits(self, tokens: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Logits [batch, length, vocabulary] of the last block's output: final norm, head, any scaling."""
        last = len(self.skeleton.blocks) - 1

        def give(index: int, given: torch.Tensor, *_: Any, **__: Any) -> Any:
            return self._wrapped(hidden if index == last else given)

        with self._blocks_replaced(give):
            output = self.skeleton.model(tokens.to(self.device), use_cache=False)
        return output.logits  # type: ignore[no-any-return]

    def _wrapped(self, hidden: torch.Tensor) -> Any:
        return (hidden, None) if self._returns_tuple else hidden

    def _embed(self, batch: torch.Tensor) -> torch.Tensor:
        found: list[torch.Tensor] = []

        def stop(index: int, hidden: torch.Tensor, *_: Any, **__: Any) -> Any:
            found.append(hidden)
            raise _Stop

        self._forward_until_stop(batch, stop)
        return found[0]

    def _record(self, batch: torch.Tensor) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """What each block receives beside the hidden states; depends on shapes only, as nothing is padded."""
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        def record(index: int, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            calls.append((args, kwargs))
            return self._wrapped(hidden)

        with self._blocks_replaced(record):
            self.skeleton.model.base_model(batch.to(self.device), use_cache=False)
        if len(calls) != len(self.skeleton.blocks):
            raise ModelError("the model's forward does not visit every block once", value=len(calls))
        return calls

    def _learn_output_type(self) -> None:
        """Whether blocks return a tuple: run the first one on a few tokens."""
        block = self.skeleton.blocks[0]
        self.skeleton.materialize(block.name, self.dtype, self.device)

        def probe(index: int, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            output = type(block.module).forward(block.module, hidden, *args, **kwargs)
            self._returns_tuple = isinstance(output, tuple)
            raise _Stop

        self._forward_until_stop(self.batches[0][:1, :8], probe)
        self.skeleton.release(block.name)

    def _forward_until_stop(self, tokens: torch.Tensor, replacement: Callable[..., Any]) -> None:
        with self._blocks_replaced(replacement):
            try:
                self.skeleton.model.base_model(tokens.to(self.device), use_cache=False)
            except _Stop:
                return
        raise ModelError(
            "the model's forward never reached its first block", value=type(self.skeleton.model).__name__
        )

    @contextmanager
    def _blocks_replaced(self, replacement: Callable[..., Any]) -> Iterator[None]:
        """Within, calling block i calls ``replacement(i, hidden, *args, **kwargs)``."""
        modules: list[nn.Module] = [block.module for block in self.skeleton.blocks]
        for index, module in enumerate(modules):
            module.__dict__["forward"] = _bind(replacement, index)
        try:
            yield
        finally:
            for module in modules:
                del module.__dict__["forward"]


def _bind(replacement: Callable[..., Any], index: int) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs.pop("hidden_states")
        return replacement(index, hidden, *args[1:], **kwargs)

    return forward


def compute_dtype(stored: torch.dtype, device: str) -> torch.dtype:
    """The dtype that blocks compute in: as stored, but fp32 for fp16 on a CPU."""
    return torch.float32 if device == "cpu" and stored == torch.float16 else stored
