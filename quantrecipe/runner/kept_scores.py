"""Scores of windows and passes under way, kept batch by batch: measuring goes on where a killed run was."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from quantrecipe.runner.ledger import Ledger, Pass
from quantrecipe.runner.losses import WindowScores


@dataclass(frozen=True, slots=True)
class KeptScores:
    """What a ledger holds of one measurement."""

    ledger: Ledger

    def known(self, batch: torch.Tensor) -> WindowScores | None:
        """The scores of a batch of windows, int64 [windows, length]; None where they are not known."""
        found = self.ledger.tensors(f"scores-{tokens_digest(batch)}")
        if found is None:
            return None
        return WindowScores(found["original"], found["quantized"], found.get("kl"), found.get("agreement"))

    def keep(self, batch: torch.Tensor, scores: WindowScores) -> None:
        """Keep the scores of a batch."""
        parts = {
            "original": scores.original_tokens,
            "quantized": scores.quantized_tokens,
            "kl": scores.kl,
            "agreement": scores.agreement,
        }
        held = {name: part for name, part in parts.items() if part is not None}
        self.ledger.keep(f"scores-{tokens_digest(batch)}", len(batch), held)

    def on_its_way(self, side: str, tokens: torch.Tensor) -> Pass:
        """The pass of the ``original`` or the ``quantized`` model over these windows."""
        return Pass(self.ledger, f"pass-{side}", tokens_digest(tokens))


def tokens_digest(tokens: torch.Tensor) -> str:
    """The first 16 hexadecimal digits of sha256 over shape and tokens."""
    return hashlib.sha256(f"{list(tokens.shape)}".encode() + tokens.contiguous().numpy().tobytes()).hexdigest()[:16]
