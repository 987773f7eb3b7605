"""Tokens a second of the quantized model against the original, in turns so that a busy machine slows both."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

PAIRS, PROMPT, NEW = 12, 32, 16


def speed_ratios(original: Any, quantized: Any, tokens: torch.Tensor, pairs: int = PAIRS) -> dict[str, Any]:
    """Both models take in a prompt and write greedily; which goes first changes from pair to pair.

    Returns ``log_ratios`` (of tokens a second, quantized / original) and both medians in tokens a second.
    """
    prompt = tokens[:1, :PROMPT]
    for model in (original, quantized):
        _seconds(model, prompt)  # warm up
    first: list[float] = []
    second: list[float] = []
    for pair in range(pairs):
        order = ((original, first), (quantized, second)) if pair % 2 else ((quantized, second), (original, first))
        for model, seconds in order:
            seconds.append(_seconds(model, prompt))
    return {
        "log_ratios": [math.log(a / b) for a, b in zip(first, second, strict=True)],
        "original": NEW / sorted(first)[pairs // 2],
        "quantized": NEW / sorted(second)[pairs // 2],
        "prompt_tokens": prompt.shape[1],
        "new_tokens": NEW,
    }


@torch.inference_mode()
def _seconds(model: Any, prompt: torch.Tensor) -> float:
    """Of one prompt and ``NEW`` tokens after it."""
    began = time.perf_counter()
    given, past = prompt.to(next(model.parameters()).device), None
    for _ in range(NEW):
        output = model(given, past_key_values=past, use_cache=True)
        given, past = output.logits[:, -1:].argmax(-1), output.past_key_values
    given.cpu()
    return time.perf_counter() - began
