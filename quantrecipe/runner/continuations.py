"""Both models continue the same openings of the held-out text, greedily: what a person can read."""

from __future__ import annotations

from typing import Any

import torch

from quantrecipe.runner.scorers import Scorer
from quantrecipe.runner.tokens import Windows, spread
from quantrecipe.runner.whole import whole

OPENING, NEW = 24, 40


def continuations(
    original: Scorer, quantized: Scorer, given: Windows, tokenizer: Any, count: int
) -> list[dict[str, Any]]:
    """``prompt``, ``original``, ``quantized`` as text, and how many tokens were ``same`` before the two part."""
    chosen = list(spread(range(len(given.tokens)), min(count, len(given.tokens))))
    opening = min(OPENING + 1, max(given.tokens.shape[1] // 2, 1))
    prompts = given.tokens[chosen, :opening]
    new = min(NEW, given.tokens.shape[1] - opening)
    first, second = (greedy(scorer, prompts, new) for scorer in (original, quantized))
    return [
        {
            "prompt": tokenizer.decode(prompt, skip_special_tokens=True),
            "original": tokenizer.decode(one, skip_special_tokens=True),
            "quantized": tokenizer.decode(other, skip_special_tokens=True),
            "same": int((one == other).long().cumprod(0).sum()),
            "tokens": new,
        }
        for prompt, one, other in zip(prompts, first, second, strict=True)
    ]


@torch.inference_mode()
def greedy(scorer: Scorer, prompts: torch.Tensor, new: int) -> torch.Tensor:
    """The ``new`` most likely tokens after each prompt, one after the other; int64 [prompts, new]."""
    with whole(scorer) as model:
        text = prompts.to(str(getattr(scorer, "device", "cpu")))
        output = model(text, use_cache=True)
        for _ in range(new):
            found = output.logits[:, -1:].argmax(-1).to(text.device)
            text = torch.cat([text, found], dim=1)
            past = getattr(output, "past_key_values", None)  # a model in another process keeps none
            output = model(text if past is None else found, past_key_values=past, use_cache=True)
        return text[:, prompts.shape[1] :].cpu()
