"""KL of many variants of one model against the original, logits made in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch

#: Logits of some positions of one batch of a stream, [windows, positions, vocabulary].
Logits = Callable[[str, int, slice], torch.Tensor]
#: Logits a piece: 12 MB in fp32, enough rows for a fast matrix product.
PIECE = 3 * 2**20


def divergences(
    logits: Logits, original: str, streams: Iterable[str], batches: Iterable[torch.Tensor], size: tuple[int, int]
) -> Mapping[str, list[float]]:
    """KL(original || variant) of each window, the mean over its positions in nats, by stream.

    batches: int64 tokens [windows, length]; the last position predicts nothing and is not counted. size: of the
    vocabulary, and of the step from one position that is looked at to the next. The original's logits of a piece are
    made once for all streams.
    """
    vocabulary, step = size
    found: dict[str, list[float]] = {name: [] for name in streams}
    for index, tokens in enumerate(batches):
        sums = {name: torch.zeros(len(tokens), dtype=torch.float64) for name in found}
        last = tokens.shape[1] - 1
        width = step * max(1, PIECE // (len(tokens) * vocabulary))
        for start in range(0, last, width):
            part = slice(start, min(start + width, last), step)
            first = logits(original, index, part).float()
            lse = first.logsumexp(-1)
            p = (first - lse.unsqueeze(-1)).exp_()
            for name in sums:
                sums[name] += _kl(first, lse, p, logits(name, index, part).float())
        for name, total in sums.items():
            found[name] += (total / len(range(0, last, step))).tolist()
    return found


def _kl(first: torch.Tensor, lse: torch.Tensor, p: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Sum over positions of sum_v p_v (o_v - q_v) - (lse_o - lse_q), whose terms are small; fp64 [windows]."""
    gap = lse - second.logsumexp(-1)
    found: torch.Tensor = (torch.linalg.vecdot(p, first - second) - gap).double().sum(-1).cpu()
    return found
