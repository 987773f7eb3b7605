"""How far apart two models' predictions are."""

from __future__ import annotations

import torch


def kl_divergence(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """KL(first || second) in nats at every position of two logits [..., vocabulary]; float64 [...]."""
    log_first, log_second = first.double().log_softmax(-1), second.double().log_softmax(-1)
    return (log_first.exp() * (log_first - log_second)).sum(-1)
