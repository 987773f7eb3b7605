"""Text after a prompt, one token at a time, with seconds and memory: what ``qrun generate`` shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from quantrecipe.errors import ModelError
from quantrecipe.modeling.heap import give_back
from quantrecipe.runner.meter import anonymous_memory
from quantrecipe.runner.quantized_cache import cache_bytes
from quantrecipe.runner.serving import Service, serve
from quantrecipe.runner.tokens import bos_token, load_tokenizer
from quantrecipe.runtime.load import Loaded


@dataclass(frozen=True, slots=True)
class Asked:
    """What to write. temperature 0 = always the most likely token."""

    prompt: str
    max_new_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote. Rates in tokens a second; memory in bytes.

    prompt_rate: tokens taken in. rate: tokens written after the first; None where there are none. weight_bytes: of
    all that the loaded model holds. resident: anonymous memory that loading it took; None where it is not known.
    cache: how keys and values are kept. cache_bytes: of a token in all layers; None where that is not known.
    notes: what the config claims and is not done.
    """

    model: str
    text: str
    tokens: int
    prompt_tokens: int
    prompt_rate: float
    rate: float | None
    weight_bytes: int
    resident: int | None
    dtype: str
    device: str
    paths: list[dict[str, Any]]
    cache: str
    cache_bytes: float | None
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def write(folder: Path, asked: Asked, device: str, trust_remote_code: bool = False) -> Written:
    """Load a model, quantized or not, and let it go on from the prompt. Raises QuantRecipeError."""
    tokenizer = load_tokenizer(folder, trust_remote_code)
    prompt = prompt_tokens(tokenizer, asked.prompt)
    before = anonymous_memory()
    notes: list[str] = []
    loaded = serve(folder, Service(device, trust_remote_code=trust_remote_code, note=notes.append))
    give_back()
    after = anonymous_memory()
    check_length(loaded, prompt, asked)
    held = _warm_up(loaded.model, prompt.to(device))
    times: list[float] = []
    found = list(_timed(tokens_of(loaded.model, prompt.to(device), asked, end_tokens(folder, loaded)), times))
    return Written(
        model=folder.resolve().name,
        text=tokenizer.decode(found, skip_special_tokens=True),
        tokens=len(found),
        prompt_tokens=prompt.shape[1],
        prompt_rate=prompt.shape[1] / times[0],
        rate=(len(times) - 1) / sum(times[1:]) if len(times) > 1 else None,
        weight_bytes=loaded.weight_bytes,
        resident=None if before is None or after is None else max(after - before, 0),
        dtype=str(loaded.dtype).removeprefix("torch."),
        device=device,
        paths=loaded.to_json(),
        cache=loaded.cache,
        cache_bytes=held,
        notes=notes,
    )


def prompt_tokens(tokenizer: Any, text: str) -> torch.Tensor:
    """int64 [1, tokens]; an empty prompt is the token that begins a text."""
    ids = list(tokenizer(text)["input_ids"])
    begin = bos_token(tokenizer)
    if not ids and begin is None:
        raise ModelError("the prompt is empty", limit="this tokenizer has no token that begins a text")
    return torch.tensor([ids or [begin]], dtype=torch.int64)


def check_length(loaded: Loaded, prompt: torch.Tensor, asked: Asked) -> None:
    """Raises ModelError where prompt and answer are longer than the model's positions."""
    limit = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    length = prompt.shape[1] + asked.max_new_tokens
    if limit is not None and length > limit:
        raise ModelError(
            "prompt and new tokens are too many", value=length, limit=f"the model has {limit} positions",
            remedy="give a shorter prompt or a smaller --max-new-tokens",
        )  # fmt: skip


def end_tokens(folder: Path, loaded: Loaded) -> set[int]:
    """The tokens after which a text is complete, as the configs say."""
    from quantrecipe.safe_json import read_json

    beside = folder / "generation_config.json"
    named = read_json(beside).get("eos_token_id") if beside.is_file() else None
    named = loaded.model.config.get_text_config().eos_token_id if named is None else named
    return {one for one in (named if isinstance(named, list) else [named]) if isinstance(one, int)}


def tokens_of(model: Any, prompt: torch.Tensor, asked: Asked, ends: set[int]) -> Iterator[int]:
    """New tokens one by one; the first is there once the prompt was taken in."""
    given, past = prompt, None
    random = torch.Generator().manual_seed(asked.seed)
    for _ in range(asked.max_new_tokens):
        with torch.inference_mode():
            output = model(given, past_key_values=past, use_cache=True, logits_to_keep=1)
        token = choose(output.logits[0, -1].float().cpu(), asked.temperature, random)
        yield token
        if token in ends:
            return
        given, past = torch.tensor([[token]], device=prompt.device), output.past_key_values


def choose(logits: torch.Tensor, temperature: float, random: torch.Generator) -> int:
    """The most likely token, or one drawn by softmax(logits / temperature)."""
    if temperature == 0:
        return int(logits.argmax())
    return int(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=random))


def _warm_up(model: Any, prompt: torch.Tensor) -> float | None:
    """A few tokens and one more, so that loops are compiled and libraries loaded before the clock runs.

    Returns the bytes that the cache keeps of a token; None where that is not known.
    """
    past = None
    for given in (prompt[:, :16], prompt[:, :1]):
        with torch.inference_mode():
            past = model(given, past_key_values=past, use_cache=True, logits_to_keep=1).past_key_values
    return cache_bytes(past)


def _timed(tokens: Iterator[int], times: list[float]) -> Iterator[int]:
    """The same tokens; appends the seconds that each took."""
    pull: Callable[[], int | None] = lambda: next(tokens, None)  # noqa: E731
    while True:
        began = time.perf_counter()
        token = pull()
        if token is None:
            return
        times.append(time.perf_counter() - began)
        yield token
