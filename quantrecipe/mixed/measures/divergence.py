"""KL of many variants of one model against the original, logits made in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch

from quantrecipe.runner.losses import counted_spans

#: Logits of positions [start, stop) of one batch of a stream, [windows, positions, vocabulary].
Logits = Callable[[str, int, int, int], torch.Tensor]


def divergences(
    logits: Logits, original: str, streams: Iterable[str], batches: Iterable[torch.Tensor], vocabulary: int
) -> Mapping[str, list[float]]:
    """KL(original || variant) of each window, the mean over its tokens in nats, by stream.

    batches: int64 tokens [windows, length]; the last position predicts nothing and is not counted. The original's
    logits of a piece are made once for all streams.
    """
    found: dict[str, list[float]] = {name: [] for name in streams}
    for index, tokens in enumerate(batches):
        sums = {name: torch.zeros(len(tokens), dtype=torch.float64) for name in found}
        for start, stop in counted_spans(tokens, vocabulary):
            first = logits(original, index, start, stop).float()
            lse = first.logsumexp(-1)
            p = (first - lse.unsqueeze(-1)).exp_()
            for name in sums:
                sums[name] += _kl(first, lse, p, logits(name, index, start, stop).float())
        for name, total in sums.items():
            found[name] += (total / (tokens.shape[1] - 1)).tolist()
    return found


def _kl(first: torch.Tensor, lse: torch.Tensor, p: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Sum over positions of sum_v p_v ((o_v - q_v) - (lse_o - lse_q)), fp64 [windows]; see runner/losses.py."""
    gap = lse - second.logsumexp(-1)
    return (second.sub_(first).neg_().sub_(gap.unsqueeze(-1)).mul_(p).sum(-1)).double().sum(-1).cpu()
