"""Texts as tokens: the tokenizer of a model folder, and windows of equal length with or without a BOS token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quantrecipe.errors import ModelError
from quantrecipe.runner.texts import TextError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "vocab.txt")


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """The tokenizer in a model folder. Raises ModelError where there is none."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            "the model folder holds no tokenizer",
            value=str(folder),
            limit=f"one of {', '.join(TOKENIZER_FILES)}",
            remedy="copy the tokenizer's files there",
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:  # the library raises errors of many kinds for damaged files
        raise ModelError(
            "the tokenizer cannot be loaded", value=str(folder), limit=f"{type(error).__name__}: {error}"[:160]
        ) from error


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text's tokens without special ones, and where each begins in the text, in characters (None: unknown)."""

    ids: torch.Tensor
    starts: list[int] | None
    text: str

    def bytes_between(self, first: int, last: int) -> int | None:
        """UTF-8 bytes of the text that tokens first..last-1 cover."""
        if self.starts is None:
            return None
        end = self.starts[last] if last < len(self.starts) else len(self.text)
        return len(self.text[self.starts[first] : end].encode("utf-8"))


def encode(tokenizer: Any, text: str) -> Encoded:
    """All tokens of a text, int64 [tokens]."""
    fast = bool(getattr(tokenizer, "is_fast", False))
    out = tokenizer(text, add_special_tokens=False, return_offsets_mapping=fast, verbose=False)
    starts = [int(pair[0]) for pair in out["offset_mapping"]] if fast else None
    return Encoded(torch.tensor(out["input_ids"], dtype=torch.int64), starts, text)


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one length over a text.

    tokens: int64 [windows, length]; the first column is BOS where ``bos`` is not None, and is never counted.
    counted: tokens of each window whose loss counts (length - 1). bytes: of the text that they cover.
    available: windows that the whole text has. index: which of them these are, rising. text: what they are cut from.
    """

    tokens: torch.Tensor
    bos: int | None
    bytes: int | None
    available: int
    index: tuple[int, ...]
    text: Encoded

    @property
    def counted(self) -> int:
        """Counted tokens a window."""
        return self.tokens.shape[1] - 1


def windows(encoded: Encoded, length: int, bos: int | None, limit: int | None = None) -> Windows:
    """Windows side by side, spread evenly over the text where ``limit`` asks for fewer than there are.

    With a BOS token each window is BOS and length - 1 tokens of text, all of them counted; without, it is
    length tokens, of which the first has nothing to be predicted from. What is left at the end is dropped.
    """
    body = length - 1 if bos is not None else length
    available = len(encoded.ids) // body
    if available < 2:
        raise TextError(
            "the text is too short to measure on",
            value=f"{len(encoded.ids)} tokens",
            limit=f"2 windows of {body} tokens are the least",
            remedy="give a longer text or a smaller evaluation.perplexity.sequence_length",
        )
    count = min(limit or available, available)
    return _cut(encoded, length, bos, available, spread(range(available), count))


def further(given: Windows, count: int) -> Windows:
    """Windows of the same text that ``given`` lacks, spread evenly, so that both together are ``count``."""
    rest = sorted(set(range(given.available)) - set(given.index))
    chosen = spread(rest, min(count - len(given.index), len(rest)))
    return _cut(given.text, given.tokens.shape[1], given.bos, given.available, chosen)


def joined(first: Windows, second: Windows) -> Windows:
    """Both together, in the order of the text."""
    index = tuple(sorted((*first.index, *second.index)))
    return _cut(first.text, first.tokens.shape[1], first.bos, first.available, index)


def spread(places: Sequence[int], count: int) -> tuple[int, ...]:
    """``count`` of the places, evenly."""
    return tuple(places[index * len(places) // count] for index in range(count))


def _cut(encoded: Encoded, length: int, bos: int | None, available: int, index: tuple[int, ...]) -> Windows:
    body, skip = (length - 1, 0) if bos is not None else (length, 1)
    tokens = torch.stack([encoded.ids[one * body : (one + 1) * body] for one in index])
    covered = [encoded.bytes_between(one * body + skip, (one + 1) * body) for one in index]
    total = None if encoded.starts is None else sum(size or 0 for size in covered)
    if bos is not None:
        tokens = torch.cat([torch.full((len(index), 1), bos, dtype=torch.int64), tokens], dim=1)
    return Windows(tokens, bos, total, available, index, encoded)


def bos_token(tokenizer: Any) -> int | None:
    """The id of the tokenizer's BOS token; None where it has none."""
    found = getattr(tokenizer, "bos_token_id", None)
    return None if found is None else int(found)
