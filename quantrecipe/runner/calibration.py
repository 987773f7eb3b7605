"""The tokens that methods such as GPTQ look at: windows of a text, chosen by seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from quantrecipe.recipe import Calibration
from quantrecipe.runner.texts import TextError, read_text
from quantrecipe.runner.tokens import bos_token, encode


@dataclass(frozen=True, slots=True)
class CalibrationTokens:
    """int64 [samples, length], and what to say of them."""

    tokens: torch.Tensor
    dataset: str
    text_tokens: int
    bos: int | None

    def line(self) -> str:
        """One line for the user."""
        samples, length = self.tokens.shape
        return (
            f"calibration: {samples} x {length} = {samples * length} tokens "
            f"of the {self.text_tokens} in {self.dataset}"
        )


def calibration_tokens(part: Calibration, tokenizer: Any, longest: int | None) -> CalibrationTokens:
    """Windows of the text that the recipe names, without overlap, in the order that its seed gives.

    longest: the model's limit of positions; longer windows are cut to it. Raises TextError where the text is
    too short.
    """
    length = min(part.sequence_length, longest or part.sequence_length)
    encoded = encode(tokenizer, read_text(part.dataset, "calibration"))
    bos = bos_token(tokenizer)
    body = length - 1 if bos is not None else length
    needed, there = part.samples * body, len(encoded.ids)
    if there < needed:
        raise TextError(
            "the calibration text is too short",
            value=f"{there} tokens",
            limit=f"{part.samples} samples of {body} need {needed}",
            remedy=f"give a longer text, or samples: {there // body}" if there >= body else "give a longer text",
        )
    tokens = _choose(encoded.ids, part, body)
    if bos is not None:
        tokens = torch.cat([torch.full((part.samples, 1), bos, dtype=torch.int64), tokens], dim=1)
    return CalibrationTokens(tokens, part.dataset, there, bos)


def _choose(ids: torch.Tensor, part: Calibration, body: int) -> torch.Tensor:
    """``samples`` of the windows that lie side by side, [samples, body], drawn by the seed."""
    count = len(ids) // body
    generator = torch.Generator().manual_seed(part.seed)
    chosen = torch.randperm(count, generator=generator)[: part.samples].sort().values
    return ids[: count * body].view(count, body)[chosen]
