"""The windows that are learned from, in an order that depends on the step alone, and those that are held back."""

from __future__ import annotations

import torch

from quantrecipe.errors import BackendError

#: One window in so many is not learned from but judged by, and no more than that.
HELD_BACK, MOST_HELD = 16, 8


class Text:
    """tokens: int64 [windows, length] on the CPU. seed: of the order."""

    def __init__(self, tokens: torch.Tensor, seed: int) -> None:
        if len(tokens) < 2:
            raise BackendError(
                "training learns from one window of calibration text and is judged by another",
                value=f"{len(tokens)} window",
                limit="at least 2",
                remedy="raise calibration.samples",
            )
        held = min(max(1, len(tokens) // HELD_BACK), MOST_HELD)
        self.learned, self.held_back = tokens[:-held].clone(), tokens[-held:].clone()
        self._seed = seed

    def batch(self, step: int, size: int) -> torch.Tensor:
        """The windows of one step, [size, length]: all windows once, in a new order, before any comes again."""
        return torch.stack([self._window(place) for place in range(step * size, (step + 1) * size)])

    def _window(self, place: int) -> torch.Tensor:
        count = len(self.learned)
        generator = torch.Generator().manual_seed((self._seed << 32) + place // count)
        order = torch.randperm(count, generator=generator)
        return self.learned[order[place % count]]
