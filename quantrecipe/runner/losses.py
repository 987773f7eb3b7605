"""Per-window losses, divergence and agreement of two models over the same tokens, logits made in pieces."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from quantrecipe.plugins.contract import Progress
from quantrecipe.runner.scorers import Scorer, batch_size

LOGITS_A_PIECE = 2**20  # 4 MB in fp32: pieces that stay in cache are half again as fast as 64 MB (demo, 2 cores)


@dataclass(frozen=True, slots=True)
class WindowScores:
    """Means over the counted tokens of each window, in nats a token; fp64 [windows].

    original, quantized: cross-entropy. kl: KL(original || quantized). agreement: share of tokens whose most
    likely next token is the same.
    """

    original: torch.Tensor
    quantized: torch.Tensor
    kl: torch.Tensor
    agreement: torch.Tensor


def compare(original: Scorer, quantized: Scorer, tokens: torch.Tensor, progress: Progress) -> WindowScores:
    """Score both models, which have taken in ``tokens``; never holds more than a piece of the logits."""
    parts: list[torch.Tensor] = []
    for index, batch in enumerate(torch.split(tokens, batch_size(tokens.shape[1]))):
        parts.append(_batch(original, quantized, index, batch))
        progress.advance(len(batch))
    table = torch.cat(parts, dim=1)
    return WindowScores(*table)


@torch.inference_mode()
def _batch(original: Scorer, quantized: Scorer, index: int, tokens: torch.Tensor) -> torch.Tensor:
    """The four means of each window of a batch, fp64 [4, windows]."""
    counted = tokens.shape[1] - 1
    step = max(1, LOGITS_A_PIECE // (len(tokens) * original.vocabulary))
    total = torch.zeros(4, len(tokens), dtype=torch.float64)
    for start in range(0, counted, step):
        stop = min(start + step, counted)
        targets = tokens[:, start + 1 : stop + 1]
        first = original.logits(index, start, stop)
        total += token_scores(first, quantized.logits(index, start, stop), targets.to(first.device))
    return total / counted


def token_scores(original: torch.Tensor, quantized: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sums over positions, fp64 [4, windows]: both losses, KL and agreements.

    Logits [windows, positions, vocabulary]; targets int64 [windows, positions]. In fp32, with the KL as
    sum_v p_v ((o_v - q_v) - (lse_o - lse_q)), whose terms are small where the models are alike.
    """
    agree = original.argmax(-1) == quantized.argmax(-1)
    first, second = original.float(), quantized.float()
    lse_first, lse_second = first.logsumexp(-1), second.logsumexp(-1)
    loss_first = lse_first - _at(first, targets)
    loss_second = lse_second - _at(second, targets)
    gap = (first - second).sub_((lse_first - lse_second).unsqueeze(-1))
    kl = (first - lse_first.unsqueeze(-1)).exp_().mul_(gap).sum(-1)
    return torch.stack([x.double().sum(-1).cpu() for x in (loss_first, loss_second, kl, agree)])


def _at(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
