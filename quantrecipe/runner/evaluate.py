"""What was lost: perplexity, divergence and agreement of original and quantized over the same tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from quantrecipe.errors import DamageError
from quantrecipe.plugins.contract import Progress
from quantrecipe.recipe import Perplexity
from quantrecipe.runner.cache import OriginalCache, take_in
from quantrecipe.runner.intervals import Interval
from quantrecipe.runner.kept_scores import KeptScores
from quantrecipe.runner.ledger import Pass
from quantrecipe.runner.losses import WindowScores, compare, gathered, losses
from quantrecipe.runner.meter import available_memory
from quantrecipe.runner.scorers import Scorer, batch_size
from quantrecipe.runner.stats.evidence import relative_increase
from quantrecipe.runner.stats.mean import Mean
from quantrecipe.runner.stats.share import Share
from quantrecipe.runner.texts import read_text
from quantrecipe.runner.tokens import Windows, bos_token, encode, windows

#: Share of the free memory that the kept hidden states of both models may take, and bytes where that is unknown.
ROOM, ROOM_WHERE_UNKNOWN = 0.25, 2 * 2**30


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


@dataclass(frozen=True, slots=True)
class Scoring:
    """How windows are scored. divergence: KL and agreement as well as losses. cache: of the original's numbers.

    room: bytes that the kept hidden states of both models may take; None = a quarter of the free memory.
    kept: what a run that was stopped had scored.
    """

    divergence: bool = True
    cache: OriginalCache | None = None
    room: int | None = None
    kept: KeptScores | None = None


def score(
    original: Scorer, quantized: Scorer, tokens: torch.Tensor, progress: Progress, how: Scoring | None = None
) -> WindowScores:
    """Losses of both models over the windows, and how far apart their logits are.

    Both models' last hidden states are kept until they are compared; where those of all windows would take more
    than there is room, the windows go through in turns, with the same result. Raises DamageError where losses
    are not finite.
    """
    asked = how or Scoring()
    batches = torch.split(tokens, batch_size(tokens.shape[1]))
    scores = [None if asked.kept is None else asked.kept.known(batch) for batch in batches]
    left = [batch for batch, known in zip(batches, scores, strict=True) if known is None]
    if len(left) < len(batches):
        progress.note(f"going on behind {len(batches) - len(left)} of {len(batches)} batches that were measured")
    fresh = iter(_fresh(original, quantized, left, progress, asked))
    return checked(gathered([next(fresh) if known is None else known for known in scores]))


def checked(found: WindowScores) -> WindowScores:
    """The scores. Raises DamageError where losses are not finite."""
    for name, values in (("original", found.original_tokens), ("quantized", found.quantized_tokens)):
        if not bool(torch.isfinite(values).all()):
            raise DamageError(f"the {name} model computes NaN or infinity")
    return found


def _fresh(
    original: Scorer, quantized: Scorer, batches: Sequence[torch.Tensor], progress: Progress, how: Scoring
) -> Iterator[WindowScores]:
    """The scores of each batch."""
    if batches:
        tokens, length = torch.cat([*batches]), batches[0].shape[1]
        for turn in torch.split(tokens, _windows_a_turn(original, quantized, length, how.room)):
            yield from _turn(original, quantized, turn, progress, how).split(batch_size(length))


def _windows_a_turn(original: Scorer, quantized: Scorer, length: int, room: int | None) -> int:
    """Whole batches, at least one."""
    if room is None:
        free = available_memory()
        room = ROOM_WHERE_UNKNOWN if free is None else int(ROOM * free)
    batch = batch_size(length)
    each = original.kept_bytes(length) + quantized.kept_bytes(length)
    return max(room // (each * batch), 1) * batch


def _turn(
    original: Scorer, quantized: Scorer, tokens: torch.Tensor, progress: Progress, how: Scoring
) -> WindowScores:
    layers = len(getattr(getattr(original, "skeleton", None), "blocks", ())) or None
    known = None if how.cache is None else how.cache.losses(original, tokens)
    if how.divergence or known is None:
        progress.start("original", layers)
        take_in(original, tokens, progress, how.cache if how.divergence else None, _pass("original", tokens, how))
    progress.start("quantized", layers)
    take_in(quantized, tokens, progress, None, _pass("quantized", tokens, how))
    progress.start("compare", len(tokens), "windows")
    found = _compared((original, quantized), tokens, progress, how, known)
    if how.cache is not None and known is None:
        how.cache.keep_losses(original, tokens, found.original_tokens)
    return found


def _pass(side: str, tokens: torch.Tensor, how: Scoring) -> Pass | None:
    return None if how.kept is None else how.kept.on_its_way(side, tokens)


def _compared(
    pair: tuple[Scorer, Scorer], tokens: torch.Tensor, progress: Progress, how: Scoring, known: torch.Tensor | None
) -> WindowScores:
    """Both models' scores, each batch's kept as soon as it is known. known: the original's losses, if they are."""
    original, quantized = pair
    keep = how.kept.keep if how.kept is not None else lambda batch, scores: None
    if how.divergence:
        return compare(original, quantized, tokens, progress, keep)
    first = losses(original, tokens, progress) if known is None else known
    found = WindowScores(first, losses(quantized, tokens, progress), None, None)
    size = batch_size(tokens.shape[1])
    for batch, scores in zip(torch.split(tokens, size), found.split(size), strict=True):
        keep(batch, scores)
    return found


def summarize(scores: WindowScores, given: Windows, convention: Convention) -> Measures:
    """Perplexities, and each difference with its interval; KL and agreement where they were measured."""
    original, quantized = float(scores.original.mean()), float(scores.quantized.mean())
    per_byte = None if not given.bytes else convention.counted_tokens / given.bytes / math.log(2)
    kl, agreement = divergences(scores)
    return Measures(
        convention,
        perplexity=math.exp(min(original, 700.0)),
        quantized_perplexity=math.exp(min(quantized, 700.0)),
        increase=relative_increase(Mean(scores.differences)).interval(),
        kl=kl.interval().clipped(0.0, math.inf) if kl else None,
        agreement=agreement.interval() if agreement else None,
        bits_per_byte=None if per_byte is None else original * per_byte,
        quantized_bits_per_byte=None if per_byte is None else quantized * per_byte,
    )


def divergences(scores: WindowScores) -> tuple[Mean | None, Share | None]:
    """KL and agreement as quantities that a gate can judge; None where they were not measured."""
    if scores.kl is None or scores.agreement is None:
        return None, None
    return Mean(scores.kl.tolist()), Share(scores.agreement.tolist(), scores.original_tokens.shape[1])


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
