"""What was lost: perplexity, divergence and agreement of original and quantized over the same tokens."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from quantrecipe.plugins.contract import Progress
from quantrecipe.recipe import Perplexity
from quantrecipe.runner.intervals import Interval, mean_interval, share_interval
from quantrecipe.runner.losses import WindowScores, compare
from quantrecipe.runner.scorers import Scorer
from quantrecipe.runner.texts import read_text
from quantrecipe.runner.tokens import Windows, bos_token, encode, windows


@dataclass(frozen=True, slots=True)
class Convention:
    """How perplexity was measured; everything that a comparison must keep fixed."""

    dataset: str
    window: int
    windows: int
    windows_available: int
    counted_tokens: int
    bytes: int | None
    bos: str | None
    stride: str
    counted: str
    dtype: str
    device: str


@dataclass(frozen=True, slots=True)
class Measures:
    """The result of a measurement. Losses in nats a token; ``increase`` is a share of the original perplexity."""

    convention: Convention
    perplexity: float
    quantized_perplexity: float
    increase: Interval
    kl: Interval | None
    agreement: Interval | None
    bits_per_byte: float | None
    quantized_bits_per_byte: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain data, as results.json holds it."""
        return asdict(self)


def evaluation_windows(part: Perplexity, tokenizer: Any, longest: int | None) -> Windows:
    """The windows that a recipe asks for; longest: the model's limit of positions."""
    length = min(part.sequence_length, longest or part.sequence_length)
    encoded = encode(tokenizer, read_text(part.dataset, "evaluation"))
    return windows(encoded, length, bos_token(tokenizer), part.windows)


def score(original: Scorer, quantized: Scorer, tokens: torch.Tensor, progress: Progress) -> WindowScores:
    """Run both models over the windows, one after the other, then compare their logits piece by piece."""
    layers = len(getattr(getattr(original, "skeleton", None), "blocks", ())) or None
    progress.start("original", layers)
    original.run(tokens, progress)
    progress.start("quantized", layers)
    quantized.run(tokens, progress)
    progress.start("compare", len(tokens), "windows")
    return compare(original, quantized, tokens, progress)


def summarize(scores: WindowScores, given: Windows, convention: Convention, divergence: bool = True) -> Measures:
    """Perplexities, and each difference with its interval; KL and agreement where ``divergence`` is asked for."""
    original, quantized = float(scores.original.mean()), float(scores.quantized.mean())
    differences = (scores.quantized - scores.original).tolist()
    per_byte = None if not given.bytes else convention.counted_tokens / given.bytes / math.log(2)
    return Measures(
        convention,
        perplexity=math.exp(min(original, 700.0)),
        quantized_perplexity=math.exp(min(quantized, 700.0)),
        increase=mean_interval(differences).map(lambda x: math.expm1(min(x, 700.0))),
        kl=mean_interval(scores.kl.tolist()).clipped(0.0, math.inf) if divergence else None,
        agreement=share_interval(scores.agreement.tolist(), given.counted) if divergence else None,
        bits_per_byte=None if per_byte is None else original * per_byte,
        quantized_bits_per_byte=None if per_byte is None else quantized * per_byte,
    )


def convention_of(part: Perplexity, given: Windows, tokenizer: Any, dtype: torch.dtype, device: str) -> Convention:
    """The convention in words and numbers."""
    count, length = given.tokens.shape
    bos = None if given.bos is None else str(tokenizer.convert_ids_to_tokens(given.bos))
    every = "every token of text" if bos else "every token but the first of each window"
    return Convention(
        dataset=part.dataset,
        window=length,
        windows=count,
        windows_available=given.available,
        counted_tokens=count * given.counted,
        bytes=given.bytes,
        bos=bos,
        stride="none: windows lie side by side" if count == given.available else "windows spread over the text",
        counted=every,
        dtype=str(dtype).removeprefix("torch."),
        device=device,
    )
