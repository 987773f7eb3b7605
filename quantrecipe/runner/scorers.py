"""Where logits come from: a model streamed block by block, or one that its backend has loaded whole."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import nn

from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.stream import Stream, compute_dtype
from quantrecipe.plugins.contract import Progress
from quantrecipe.runner.ledger import Pass

TOKENS_A_BATCH = 4096


class Scorer(Protocol):
    """Logits of a model over fixed windows, a piece at a time."""

    vocabulary: int

    @property
    def dtype(self) -> torch.dtype:
        """What is computed in."""

    def kept_bytes(self, length: int) -> int:
        """Bytes that a window of that length occupies between ``run`` and ``close``."""

    def run(self, tokens: torch.Tensor, progress: Progress) -> None:
        """Take in the windows, int64 [windows, length]."""

    def logits(self, batch: int, start: int, stop: int) -> torch.Tensor:
        """Logits [windows of the batch, stop - start, vocabulary] at those positions of batch ``batch``."""

    def close(self) -> None:
        """Give the memory back."""


def batch_size(length: int) -> int:
    """Windows a batch, so that a batch has about 4096 tokens."""
    return max(1, TOKENS_A_BATCH // length)


class Streamed:
    """One block in memory at a time; the last block's outputs [windows, length, hidden] are kept."""

    def __init__(self, skeleton: Skeleton, device: str = "cpu", dtype: torch.dtype | None = None) -> None:
        self.skeleton, self.device, self._asked = skeleton, device, dtype
        self.vocabulary = int(skeleton.model.config.get_text_config().vocab_size)
        self._stream: Stream | None = None
        self._hidden: list[torch.Tensor] = []

    @property
    def stream(self) -> Stream:
        """The windows on their way; there once ``run`` was called."""
        assert self._stream is not None
        return self._stream

    @property
    def dtype(self) -> torch.dtype:
        """What blocks compute in."""
        return self._asked or compute_dtype(self.skeleton.dtype, self.device)

    def kept_bytes(self, length: int) -> int:
        """The last block's outputs."""
        hidden = int(self.skeleton.model.config.get_text_config().hidden_size)
        return length * hidden * self.dtype.itemsize

    @property
    def hidden(self) -> list[torch.Tensor]:
        """The kept outputs [windows, length, hidden] a batch, final norm not yet applied."""
        return self._hidden

    @torch.inference_mode()
    def restore(self, tokens: torch.Tensor, hidden: list[torch.Tensor]) -> None:
        """Take in the windows with the outputs that an earlier ``run`` kept, on the CPU."""
        self._stream = Stream(self.skeleton, tokens, batch_size(tokens.shape[1]), self._asked, self.device)
        self._stream.enter()
        self._hidden = [batch.to(self.device) for batch in hidden]

    @torch.inference_mode()
    def run(self, tokens: torch.Tensor, progress: Progress, kept: Pass | None = None) -> None:
        """Stream all windows through all blocks; from where ``kept`` has them, if it has."""
        self._stream = Stream(self.skeleton, tokens, batch_size(tokens.shape[1]), self._asked, self.device)
        start, hidden = 0, self._stream.enter()
        held = None if kept is None else kept.resume()
        if held is not None:
            start, hidden = held[0], [batch.to(self.device) for batch in held[1]]
            progress.advance(start)
        for index, block in list(enumerate(self.skeleton.blocks))[start:]:
            self.skeleton.materialize(block.name, self.dtype, self.device)
            for number, batch in enumerate(hidden):
                hidden[number] = self._stream.call(index, batch)
            self.skeleton.release(block.name)
            progress.advance(block=block.name)
            if kept is not None:
                kept.keep(index + 1, hidden)
        self._hidden = hidden

    @torch.inference_mode()
    def logits(self, batch: int, start: int, stop: int) -> torch.Tensor:
        """Final norm and head on a piece of the kept outputs."""
        tokens = self.stream.batches[batch][:, start:stop]
        return self.stream.logits(tokens, self._hidden[batch][:, start:stop])

    def close(self) -> None:
        """Drop the kept outputs and what lies outside the blocks."""
        self._hidden, self._stream = [], None
        self.skeleton.release("")


class Loaded:
    """A whole model in memory, as a backend's ``load`` gives it; for formats that do not stream."""

    def __init__(self, model: nn.Module, vocabulary: int, dtype: torch.dtype, device: str = "cpu") -> None:
        self.model, self.vocabulary, self.device = model.eval(), vocabulary, device
        self._dtype = dtype
        self._batches: tuple[torch.Tensor, ...] = ()
        self._held: tuple[int, torch.Tensor] | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Of the loaded weights."""
        return self._dtype

    def kept_bytes(self, length: int) -> int:
        """Nothing but the tokens."""
        return 8 * length

    def run(self, tokens: torch.Tensor, progress: Progress) -> None:
        """Keep the windows; the forward passes are made when logits are asked for."""
        self._batches = torch.split(tokens, batch_size(tokens.shape[1]))

    @torch.inference_mode()
    def logits(self, batch: int, start: int, stop: int) -> torch.Tensor:
        """A piece of the batch's logits, which are kept until another batch is asked for."""
        if self._held is None or self._held[0] != batch:
            self._held = None
            output: Any = self.model(self._batches[batch].to(self.device), use_cache=False)
            self._held = (batch, output.logits)
        return self._held[1][:, start:stop]

    def close(self) -> None:
        """Drop the logits, and the model's process where it has one."""
        self._held, self._batches = None, ()
        getattr(self.model, "close", lambda: None)()
