"""Where the loss lies: perplexity by position in the window, and by how often a token occurs in the text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from quantrecipe.runner.losses import WindowScores
from quantrecipe.runner.tokens import Windows


def by_position(given: Windows, scores: WindowScores) -> list[dict[str, Any]]:
    """Rows of doubling width: positions 1, 2-3, 4-7, … counted from the first token that has a context."""
    return [
        _row(f"{low}" if low == high else f"{low}-{high}", scores, _columns(scores, low - 1, high))
        for low, high in _doubling(scores.original_tokens.shape[1])
    ]


def by_frequency(given: Windows, scores: WindowScores) -> list[dict[str, Any]]:
    """Rows by how often the token that is to be predicted occurs in the measured windows: once, 2-3, 4-7, …"""
    targets = given.tokens[:, 1:]
    counts = torch.bincount(targets.flatten())[targets]
    rows = []
    for low, high in _doubling(int(counts.max())):
        chosen = (counts >= low) & (counts <= high)
        if bool(chosen.any()):
            rows.append(_row(f"{low}" if low == high else f"{low}-{high}", scores, chosen))
    return rows


def _doubling(most: int) -> Iterator[tuple[int, int]]:
    low = 1
    while low <= most:
        yield low, min(2 * low - 1, most)
        low *= 2


def _columns(scores: WindowScores, start: int, stop: int) -> torch.Tensor:
    chosen = torch.zeros_like(scores.original_tokens, dtype=torch.bool)
    chosen[:, start:stop] = True
    return chosen


def _row(label: str, scores: WindowScores, chosen: torch.Tensor) -> dict[str, Any]:
    """Tokens, and both perplexities over them."""
    first = float(scores.original_tokens[chosen].double().mean())
    second = float(scores.quantized_tokens[chosen].double().mean())
    return {
        "label": label,
        "tokens": int(chosen.sum()),
        "perplexity": math.exp(min(first, 700.0)),
        "quantized_perplexity": math.exp(min(second, 700.0)),
    }
