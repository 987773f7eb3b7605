"""The four precisions that a model is trained in; steps are taken on fp32 weights in all of them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from quantrecipe.recipe_training import Precision


@dataclass(frozen=True, slots=True)
class Numbers:
    """weights: the type that the model is held and differentiated in. autocast: what its products are computed in.

    scales: the loss is scaled, so that small gradients do not vanish in fp16 (Micikevicius et al., arXiv:1710.03740).
    """

    weights: torch.dtype
    autocast: torch.dtype | None = None
    scales: bool = False

    def computing(self, device: str) -> AbstractContextManager[object]:
        """Within, products are computed as they should be."""
        return nullcontext() if self.autocast is None else torch.autocast(device, self.autocast)


NUMBERS: dict[Precision, Numbers] = {
    "fp32": Numbers(torch.float32),
    "bf16": Numbers(torch.bfloat16),
    "fp16": Numbers(torch.float16, scales=True),
    "mixed": Numbers(torch.float32, torch.bfloat16),
}
