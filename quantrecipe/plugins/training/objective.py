"""What training makes small, in nats a token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

#: Loss of logits [batch, length, vocabulary] on tokens [batch, length].
Objective = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def next_token(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the token that follows each."""
    return F.cross_entropy(logits[:, :-1].float().flatten(0, 1), tokens[:, 1:].flatten())


def divergence_from(original: Any) -> Objective:
    """KL(original || model) of the next token's distribution; ``original``: a model of transformers, frozen."""

    def divergence(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = original(input_ids=tokens, use_cache=False).logits.float().log_softmax(-1)
        found = logits.float().log_softmax(-1)
        return F.kl_div(found.flatten(0, 1), wanted.flatten(0, 1), reduction="batchmean", log_target=True)

    return divergence
