"""Streamed perplexity, KL and agreement equal what transformers and float64 give on whole models."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from families import make_model
from runner_models import add_tokenizer, text
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from quantrecipe.errors import DamageError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.recipe import Calibration
from quantrecipe.runner import losses, scorers
from quantrecipe.runner.cache import open_cache
from quantrecipe.runner.calibration import calibration_tokens
from quantrecipe.runner.evaluate import Scoring, score
from quantrecipe.runner.losses import compare, token_scores
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.scorers import Loaded, Scorer, Streamed
from quantrecipe.runner.texts import TextError
from quantrecipe.runner.tokens import bos_token, encode, load_tokenizer, windows


def _scorer(folder: Path) -> Streamed:
    return Streamed(Skeleton(ModelFolder.open(folder)))


@pytest.mark.parametrize("family", ["llama-tied", "opt-350m", "gpt2", "bloom", "gemma2", "falcon", "qwen3"])
def test_losses_and_divergence_equal_the_whole_models(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "LOGITS_A_PIECE", 160 * 7 * 5)  # pieces that do not divide the windows
    folders = [make_model(family, tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    tokens = torch.randint(3, 160, (5, 24), generator=torch.Generator().manual_seed(1))
    both: list[Scorer] = [_scorer(folder) for folder in folders]
    for scorer in both:
        scorer.run(tokens, Quiet())
    found = compare(*both, tokens, Quiet())
    models = [AutoModelForCausalLM.from_pretrained(folder).eval() for folder in folders]
    with torch.inference_mode():
        plain = [float(model(tokens, labels=tokens).loss) for model in models]
        first, second = (model(tokens).logits[:, :-1].double().log_softmax(-1) for model in models)
    assert float(found.original.mean()) == pytest.approx(plain[0], rel=1e-5)
    assert float(found.quantized.mean()) == pytest.approx(plain[1], rel=1e-5)
    kl = (first.exp() * (first - second)).sum(-1).mean(-1)
    torch.testing.assert_close(found.kl, kl, rtol=1e-4, atol=1e-7)
    agree = (first.argmax(-1) == second.argmax(-1)).double().mean(-1)
    torch.testing.assert_close(found.agreement, agree)


def test_a_loaded_model_scores_like_a_streamed_one(tmp_path: Path) -> None:
    folder = make_model("llama", tmp_path / "model")
    tokens = torch.randint(3, 160, (4, 16), generator=torch.Generator().manual_seed(1))
    streamed = _scorer(folder)
    loaded = Loaded(AutoModelForCausalLM.from_pretrained(folder), 160, torch.float32)
    for scorer in (streamed, loaded):
        scorer.run(tokens, Quiet())
    found = compare(streamed, loaded, tokens, Quiet())
    assert float(found.kl.abs().max()) < 1e-6
    torch.testing.assert_close(found.original, found.quantized, rtol=1e-5, atol=1e-6)


def test_a_tiny_divergence_is_not_lost_in_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 200, 5000, generator=generator, dtype=torch.float64) * 4
    other = logits + 5e-3 * torch.randn(logits.shape, generator=generator, dtype=torch.float64)
    first, second = logits.log_softmax(-1), other.log_softmax(-1)
    exact = float((first.exp() * (first - second)).sum())
    found = token_scores(logits.float(), other.float(), torch.zeros(1, 200, dtype=torch.int64))
    assert float(found[2].double().sum()) == pytest.approx(exact, rel=0.01)


def test_windows_count_every_token_of_text_behind_a_bos(tmp_path: Path) -> None:
    add_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    encoded = encode(tokenizer, text(200))
    found = windows(encoded, 17, bos_token(tokenizer))
    body = found.tokens[:, 1:].flatten()
    assert found.tokens[:, 0].unique().tolist() == [tokenizer.bos_token_id]
    assert torch.equal(body, encoded.ids[: len(body)])
    covered = found.tokens.shape[0] * 16
    assert found.bytes == encoded.bytes_between(0, covered)
    assert found.counted == 16


def test_windows_without_a_bos_leave_their_first_token_out(tmp_path: Path) -> None:
    add_tokenizer(tmp_path)
    encoded = encode(load_tokenizer(tmp_path), "älter " * 100)
    found = windows(encoded, 10, None)
    assert found.counted == 9
    skipped = sum(encoded.bytes_between(10 * i, 10 * i + 1) or 0 for i in range(len(found.tokens)))
    assert found.bytes == (encoded.bytes_between(0, 10 * len(found.tokens)) or 0) - skipped


def test_fewer_windows_are_spread_over_the_text(tmp_path: Path) -> None:
    add_tokenizer(tmp_path)
    encoded = encode(load_tokenizer(tmp_path), text(1000))
    every, some = windows(encoded, 10, None), windows(encoded, 10, None, limit=4)
    step = len(every.tokens) // 4
    assert torch.equal(some.tokens[1], every.tokens[1 * len(every.tokens) // 4])
    assert step > 1
    assert some.available == len(every.tokens)


def test_calibration_is_seeded_and_without_overlap(tmp_path: Path) -> None:
    add_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    (tmp_path / "a.txt").write_text(text(2000), encoding="utf-8")
    part = Calibration(dataset=str(tmp_path / "a.txt"), samples=10, sequence_length=20)
    first, again = (calibration_tokens(part, tokenizer, None).tokens for _ in range(2))
    other = calibration_tokens(part.model_copy(update={"seed": 1}), tokenizer, None).tokens
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (10, 20)
    assert calibration_tokens(part, tokenizer, 16).tokens.shape == (10, 16)


def test_jsonl_text_and_its_faults(tmp_path: Path) -> None:
    add_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "the sea"}\n\n{"text": "calm"}\n', encoding="utf-8")
    part = Calibration(dataset=str(path), samples=100, sequence_length=20)
    with pytest.raises(TextError, match=r"too short.*need"):
        calibration_tokens(part, tokenizer, None)
    path.write_text('{"words": 1}\n', encoding="utf-8")
    with pytest.raises(TextError, match=r"a\.jsonl:1"):
        calibration_tokens(part, tokenizer, None)


def test_perplexity_of_a_uniform_model_is_the_vocabulary() -> None:
    logits = torch.zeros(1, 8, 160)
    found = token_scores(logits, logits, torch.arange(8).unsqueeze(0))
    assert float(found[0].mean()) == pytest.approx(math.log(160))
    assert float(found[2].abs().max()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "gemma2"])
def test_turns_give_the_numbers_of_one_go(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where hidden states would not fit, windows go through in turns; no bit differs."""
    folders = [make_model(family, tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    first, second = (_scorer(folder) for folder in folders)
    monkeypatch.setattr(scorers, "TOKENS_A_BATCH", 48)
    tokens = torch.randint(3, 160, (11, 24), generator=torch.Generator().manual_seed(1))
    whole, turns = (score(first, second, tokens, Quiet(), Scoring(room=room)) for room in (None, 1))
    assert torch.equal(whole.original_tokens, turns.original_tokens)
    assert torch.equal(whole.kl, turns.kl)  # type: ignore[arg-type]


def test_losses_alone_are_those_beside_the_divergence(tmp_path: Path) -> None:
    first, second = (_scorer(make_model("llama", tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    tokens = torch.randint(3, 160, (5, 24), generator=torch.Generator().manual_seed(1))
    full, alone = (score(first, second, tokens, Quiet(), Scoring(divergence)) for divergence in (True, False))
    torch.testing.assert_close(full.quantized_tokens, alone.quantized_tokens)
    assert alone.kl is None


def test_a_model_that_computes_nan_is_damage(tmp_path: Path) -> None:
    folder = make_model("llama", tmp_path / "a")
    state = load_file(folder / "model.safetensors")
    state["model.norm.weight"][0] = float("nan")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    tokens = torch.randint(3, 160, (3, 24))
    with pytest.raises(DamageError, match="computes NaN"):
        score(_scorer(make_model("llama", tmp_path / "b")), _scorer(folder), tokens, Quiet())


def _counting(scorer: Streamed) -> list[str]:
    """The blocks that the scorer runs, as they are run."""
    seen: list[str] = []
    run = scorer.skeleton.materialize

    def materialize(prefix: str, *rest: object) -> None:
        seen.append(prefix)
        run(prefix, *rest)  # type: ignore[arg-type]

    scorer.skeleton.materialize = materialize  # type: ignore[method-assign]
    return seen


@pytest.mark.parametrize("divergence", [True, False])
def test_the_original_is_measured_once(divergence: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTRECIPE_CACHE", str(tmp_path / "cache"))
    folders = [make_model("llama", tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    tokens = torch.randint(3, 160, (5, 24), generator=torch.Generator().manual_seed(1))
    found, ran = [], []
    for _ in range(2):
        first, second = (_scorer(folder) for folder in folders)
        seen = _counting(first)
        cache = open_cache(first.skeleton.folder)
        found.append(score(first, second, tokens, Quiet(), Scoring(divergence, cache)))
        ran.append(any(name.endswith("layers.1") for name in seen))
    assert ran == [True, False]
    assert torch.equal(found[0].original_tokens, found[1].original_tokens)
    assert not divergence or torch.equal(found[0].kl, found[1].kl)  # type: ignore[arg-type]


def test_the_cache_knows_models_tokens_and_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTRECIPE_CACHE", str(tmp_path / "cache"))
    one, other = (_scorer(make_model("llama", tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    tokens = torch.randint(3, 160, (2, 24), generator=torch.Generator().manual_seed(1))
    cache, second = open_cache(one.skeleton.folder), open_cache(other.skeleton.folder)
    assert cache is not None
    assert second is not None
    cache.keep_losses(one, tokens, torch.ones(2, 23))
    assert cache.losses(one, tokens) is not None
    assert cache.losses(one, tokens + 1) is None
    assert second.losses(other, tokens) is None
    monkeypatch.setenv("QUANTRECIPE_CACHE_SIZE", "300")
    small = open_cache(one.skeleton.folder)
    assert small is not None
    small.keep_losses(one, tokens + 1, torch.ones(2, 23))  # 184 bytes: the older entry has to go
    assert small.losses(one, tokens + 1) is not None
    assert small.losses(one, tokens) is None
    next((tmp_path / "cache" / "original").glob("*")).write_bytes(b"damaged")
    assert small.losses(one, tokens + 1) is None
    monkeypatch.setenv("QUANTRECIPE_CACHE", "off")
    assert open_cache(one.skeleton.folder) is None
