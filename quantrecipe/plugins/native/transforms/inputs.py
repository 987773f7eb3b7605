"""What a block's layers receive over the calibration text, as far as a transform needs to know it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from quantrecipe.plugins.native.stages import Block

#: Tokens kept to measure output errors on, spread evenly over the text.
SAMPLE_TOKENS = 1024


class InputStatistics:
    """Of one layer's input X [tokens, K]: high and low, the greatest and least of each channel; mean of |X|.

    ``sample``: some rows of X, fp32. tokens: how many were seen; none by an expert that no token was sent to.
    """

    def __init__(self, stride: int) -> None:
        self.high = self.low = self._sum = torch.empty(0)
        self._stride, self.tokens = stride, 0
        self._rows: list[torch.Tensor] = []

    def add(self, inputs: torch.Tensor) -> None:
        """Take in inputs [..., K] of any float dtype."""
        x = inputs.reshape(-1, inputs.shape[-1])
        high, low, total = x.amax(0).float(), x.amin(0).float(), x.abs().sum(0, dtype=torch.float32)
        first = not self.tokens
        self.high = high if first else torch.maximum(self.high, high)
        self.low = low if first else torch.minimum(self.low, low)
        self._sum = total if first else self._sum + total
        self._rows.append(x[-self.tokens % self._stride :: self._stride].float())
        self.tokens += len(x)

    @property
    def magnitude(self) -> torch.Tensor:
        """max|X_j|, [K]."""
        return torch.maximum(self.high, -self.low)

    @property
    def mean(self) -> torch.Tensor:
        """mean|X_j|, [K]."""
        return self._sum / max(self.tokens, 1)

    @property
    def sample(self) -> torch.Tensor:
        """Rows of X [at most about 1024, K]."""
        return torch.cat(self._rows)


def observe(block: Block, names: Iterable[str]) -> dict[str, InputStatistics]:
    """Statistics of the inputs of layers of the block, by their name in it, on the original stream."""
    batches: Sequence[torch.Tensor] = block.inputs["original"]
    tokens = sum(batch.shape[0] * batch.shape[1] for batch in batches)
    stride = max(1, tokens // SAMPLE_TOKENS)
    found = {name: InputStatistics(stride) for name in names}
    hooks = [block.module.get_submodule(name).register_forward_pre_hook(_recorder(found, name)) for name in found]
    try:
        for batch in batches:
            block.run(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _recorder(found: Mapping[str, InputStatistics], name: str) -> Any:
    def record(_: nn.Module, args: tuple[Any, ...]) -> None:
        found[name].add(args[0])

    return record
