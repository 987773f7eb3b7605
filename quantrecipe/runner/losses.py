"""Per-token losses, divergence and agreement of two models over the same tokens, logits made in pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from quantrecipe.plugins.contract import Progress
from quantrecipe.runner.scorers import Scorer, batch_size

LOGITS_A_PIECE = 2**20  # 4 MB in fp32: pieces that stay in cache are half again as fast as 64 MB (demo, 2 cores)


@dataclass(frozen=True, slots=True)
class WindowScores:
    """What two models make of the same windows.

    original_tokens, quantized_tokens: cross-entropy of each counted token in nats, fp32 [windows, counted].
    kl: KL(original || quantized), the mean of each window in nats a token, fp64 [windows]. agreement: share of
    tokens whose most likely next token is the same, fp64 [windows]. Both None where only losses were asked for.
    """

    original_tokens: torch.Tensor
    quantized_tokens: torch.Tensor
    kl: torch.Tensor | None
    agreement: torch.Tensor | None

    @property
    def original(self) -> torch.Tensor:
        """The original's mean loss of each window, fp64 [windows]."""
        return self.original_tokens.double().mean(-1)

    @property
    def quantized(self) -> torch.Tensor:
        """The quantized model's mean loss of each window, fp64 [windows]."""
        return self.quantized_tokens.double().mean(-1)

    @property
    def differences(self) -> list[float]:
        """Quantized minus original, a window."""
        return [float(x) for x in self.quantized - self.original]

    def split(self, size: int) -> list[WindowScores]:
        """The scores of so many windows each."""
        count = -(-len(self.original_tokens) // size)

        def parts(whole: torch.Tensor | None) -> Sequence[torch.Tensor | None]:
            return [None] * count if whole is None else torch.split(whole, size)

        first, second = torch.split(self.original_tokens, size), torch.split(self.quantized_tokens, size)
        groups = zip(first, second, parts(self.kl), parts(self.agreement), strict=True)
        return [WindowScores(*group) for group in groups]


def gathered(parts: Sequence[WindowScores], order: Sequence[int] | None = None) -> WindowScores:
    """All parts as one, their windows put in ``order`` where it is given."""
    places = None if order is None else torch.tensor(order)

    def together(tensors: list[torch.Tensor | None]) -> torch.Tensor | None:
        found = [tensor for tensor in tensors if tensor is not None]
        if len(found) < len(tensors):
            return None
        whole = torch.cat(found)
        return whole if places is None else whole[places]

    first, second = together([part.original_tokens for part in parts]), together([p.quantized_tokens for p in parts])
    assert first is not None
    assert second is not None
    return WindowScores(first, second, together([p.kl for p in parts]), together([p.agreement for p in parts]))


def compare(
    original: Scorer,
    quantized: Scorer,
    tokens: torch.Tensor,
    progress: Progress,
    done: Callable[[torch.Tensor, WindowScores], None] = lambda batch, scores: None,
) -> WindowScores:
    """Score both models, which have taken in ``tokens``; never holds more than a piece of the logits.

    done: called with each batch and its scores.
    """
    parts: list[WindowScores] = []
    for index, batch in enumerate(torch.split(tokens, batch_size(tokens.shape[1]))):
        parts.append(_batch(original, quantized, index, batch))
        done(batch, parts[-1])
        progress.advance(len(batch))
    return gathered(parts)


@torch.inference_mode()
def _batch(original: Scorer, quantized: Scorer, index: int, tokens: torch.Tensor) -> WindowScores:
    pieces = []
    for start, stop in counted_spans(tokens, original.vocabulary):
        first = original.logits(index, start, stop)
        targets = tokens[:, start + 1 : stop + 1].to(first.device)
        pieces.append(token_scores(first, quantized.logits(index, start, stop), targets))
    table = torch.cat(pieces, dim=-1)
    kl, agreement = table[2:].double().mean(-1)
    return WindowScores(table[0], table[1], kl, agreement)


@torch.inference_mode()
def losses(scorer: Scorer, tokens: torch.Tensor, progress: Progress) -> torch.Tensor:
    """Cross-entropy of each counted token of one model, which has taken in ``tokens``; fp32 [windows, counted]."""
    found = []
    for index, batch in enumerate(torch.split(tokens, batch_size(tokens.shape[1]))):
        pieces = []
        for start, stop in counted_spans(batch, scorer.vocabulary):
            logits = scorer.logits(index, start, stop).float()
            targets = batch[:, start + 1 : stop + 1].to(logits.device)
            pieces.append((logits.logsumexp(-1) - _at(logits, targets)).cpu())
        found.append(torch.cat(pieces, dim=-1))
        progress.advance(len(batch))
    return torch.cat(found)


def counted_spans(tokens: torch.Tensor, vocabulary: int) -> list[tuple[int, int]]:
    """(start, stop) of runs of counted positions whose logits are a piece."""
    counted = tokens.shape[1] - 1
    step = max(1, LOGITS_A_PIECE // (len(tokens) * vocabulary))
    return [(start, min(start + step, counted)) for start in range(0, counted, step)]


def token_scores(original: torch.Tensor, quantized: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of each token, fp32 [4, windows, positions]: both losses, KL and agreement.

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
    return torch.stack([x.float().cpu() for x in (loss_first, loss_second, kl, agree)])


def _at(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
