"""Models on one scale: perplexities of one tokenizer, bits a byte across tokenizers, or "cannot compare" aloud."""

from __future__ import annotations

import math

import pytest
from click.testing import CliRunner

from quantrecipe.advisor.cli import cli
from quantrecipe.advisor.family import members
from quantrecipe.advisor.scale import scale_of
from quantrecipe.catalog import lookup
from quantrecipe.errors import QuantRecipeError
from quantrecipe.rules.prediction_baseline import TEXT_BYTES, Member, bits_per_byte
from quantrecipe.rules.prediction_model import shipped


def run(*args: str) -> str:
    return " ".join(CliRunner().invoke(cli, list(args)).output.split())


def test_bits_a_byte_by_hand() -> None:
    """Llama-3-8B 6.1 and Llama-2-13B 4.88 on WikiText-2: 0.584 and 0.605 bits a byte, the reverse order."""
    llama_3 = bits_per_byte(shipped(), Member("llama-3", 8.0, "llama-3", 8.0))
    llama_2 = bits_per_byte(shipped(), Member("llama-2", 13.0, "llama", 13.0))
    assert llama_3 == pytest.approx(math.log2(6.1) * 289_077 / TEXT_BYTES)
    assert llama_2 == pytest.approx(math.log2(4.88) * 341_469 / TEXT_BYTES)
    assert llama_3 and llama_2 and llama_3 < llama_2


def test_two_tokenizers_are_compared_by_the_byte() -> None:
    small, large = lookup.spec("llama-3-8b"), lookup.spec("llama-2-13b")
    scale = scale_of([small, large], large)
    assert scale.by_bytes and not scale.unlike
    assert scale.offsets["llama-3-8b"] == 0 < scale.offsets["llama-2-13b"]
    assert scale.rates["llama-3-8b"] == pytest.approx(289_077 / 341_469)
    text = run("--family", "llama-2,llama-3", "--mem", "16GB")
    assert text.startswith("llama-3-8b in 16GB") and "bits a byte of WikiText-2 were compared" in text


def test_one_tokenizer_needs_no_bytes() -> None:
    models = members("bloom", None)
    scale = scale_of(models, models[-1])
    assert not scale.by_bytes and set(scale.rates.values()) == {1.0} and len(scale.offsets) == len(models)
    assert scale.offsets["bloom-7b1"] == pytest.approx(math.log(11.37 / 8.11), abs=1e-6)


def test_what_cannot_be_compared_is_said() -> None:
    text = run("--family", "mistral", "--mem", "16GB")
    assert "cannot compare ministral-8b, mistral-nemo-12b, mistral-small-24b" in text
    assert "the best of them is mistral-small-24b" in text
    assert "cannot compare" not in run("--family", "bloom", "--mem", "16GB")


def test_a_tie_is_said() -> None:
    assert "a tie: mistral-7b-v0.2" in run("--family", "mistral", "--mem", "16GB")


def test_or_smaller_crosses_families_of_one_tokenizer() -> None:
    names = [one.id for one in members(None, "llama-3.1-8b")]
    assert names == ["llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b"]
    assert {one.family for one in members(None, "llama-2-13b")} <= {"llama", "llama-2"}


def test_experts_count_between_all_and_active() -> None:
    models = [lookup.spec("qwen3-30b-a3b"), lookup.spec("qwen3-32b"), lookup.spec("qwen3-4b")]
    offsets = scale_of(models, models[1]).offsets
    assert 0 == offsets["qwen3-32b"] < offsets["qwen3-30b-a3b"] < offsets["qwen3-4b"]


def test_published_and_estimated_baselines_stand_on_one_scale() -> None:
    """One published size (Mixtral-8x7B): the other is estimated from it, not from nowhere."""
    models = members("mixtral", None)
    offsets = scale_of(models, models[-1]).offsets
    assert offsets["mixtral-8x22b"] == 0 and 0 < offsets["mixtral-8x7b"] < 0.4


def test_unknown_families_in_a_list() -> None:
    with pytest.raises(QuantRecipeError, match="unknown family"):
        members("bloom,blum", None)
