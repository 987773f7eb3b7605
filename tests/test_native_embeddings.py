"""Quantized embeddings: rows by themselves, read by transformers, before the first block sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quantrecipe.errors import BackendError, RecipeError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.runner.quantized import open_dequantized
from tests import families
from tests.native_jobs import load_with_transformers, make_job, quantize, tokens

RTN = {"main": {"scheme": "w4a16-g32", "method": "rtn"}}
GPTQ = {"main": {"scheme": "w4a16-g32", "method": "gptq"}}
EMBEDDINGS = {"llama": "model.embed_tokens", "gpt-neox": "gpt_neox.embed_in", "qwen3-moe": "model.embed_tokens"}


def with_embedding(groups: dict[str, Any], scheme: str, target: str = "Embedding") -> dict[str, Any]:
    return {**groups, "embedding": {"scheme": scheme, "targets": [target], "method": "rtn"}}


def assert_rounded(after: torch.Tensor, before: torch.Tensor, group: int) -> None:
    """Symmetric rounding to the nearest of 8 bits in float64, a scale a row or group in the weight's dtype.

    The greatest of a group lies half-way between two codes: either is the nearest.
    """
    parts, found = (one.double().reshape(len(before), -1, group) for one in (before, after))
    scale = (parts.abs().amax(-1, keepdim=True) / 127.5).to(before.dtype).double().clamp_min(1e-30)
    exact = (parts / scale).clamp(-128, 127)
    assert float((found / scale - exact).abs().max()) <= 0.5 + 1e-3
    codes = found / scale
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("groups", [RTN, GPTQ], ids=["rtn", "gptq"])
@pytest.mark.parametrize("family", EMBEDDINGS)
def test_transformers_computes_what_was_written(family: str, groups: dict[str, Any], tmp_path: Path) -> None:
    model = families.make_model(family, tmp_path / "model")
    out = tmp_path / "out"
    checkpoint = quantize(model, out, with_embedding(groups, "w8a16"))
    loaded = load_with_transformers(out)
    witness = tokens(2, 24, seed=2)
    with torch.no_grad():
        logits = loaded(witness).logits
    if checkpoint.witness_logits is not None:
        torch.testing.assert_close(logits, checkpoint.witness_logits, rtol=2e-4, atol=2e-4)
    name = f"{EMBEDDINGS[family]}.weight"
    before = ModelFolder.open(model).tensor(name)
    after = loaded.get_parameter(name).detach()
    assert_rounded(after, before, before.shape[1])
    assert ModelFolder.open(out).info(name).dtype == torch.int8
    folder, _ = open_dequantized(out, None)
    assert torch.equal(folder.tensor(name), after)


def test_groups_within_a_row(tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    checkpoint = quantize(model, tmp_path / "out", with_embedding(RTN, "w8a16-g32", "model.embed_tokens"))
    after = load_with_transformers(tmp_path / "out").get_parameter("model.embed_tokens.weight").detach()
    before = ModelFolder.open(model).tensor("model.embed_tokens.weight")
    assert_rounded(after, before, 32)
    record = next(one for one in checkpoint.layers if one.name == "model.embed_tokens")
    assert record.bytes == 160 * 64 + 160 * 2 * before.element_size()


def test_blocks_are_calibrated_behind_the_quantized_embedding(tmp_path: Path) -> None:
    """GPTQ's Hessians see the embedding as it will be served: its rows change the codes behind them."""
    model = families.make_model("llama", tmp_path / "model")
    fine = quantize(model, tmp_path / "a", GPTQ)
    coarse = quantize(model, tmp_path / "b", with_embedding(GPTQ, "w8a16"))
    digests = [{one.name: one.digest for one in checkpoint.layers} for checkpoint in (fine, coarse)]
    q = "model.layers.0.self_attn.q_proj"
    assert digests[0][q] != digests[1][q]


@pytest.mark.parametrize(
    ("group", "form", "part"),
    [
        ({"scheme": "w8a16", "method": "hqq"}, "compressed-tensors", "by hqq"),
        ({"scheme": "fp8"}, "compressed-tensors", "embedding"),
        ({"scheme": "w4a16"}, "compressed-tensors", "8-bit integers"),
        ({"scheme": "w8a8"}, "compressed-tensors", "no inputs"),
        ({"scheme": "w8a16"}, "gptq", "embedding|more than one"),
    ],
)
def test_what_no_embedding_can_be_is_refused(group: dict[str, Any], form: str, part: str, tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    groups = {**RTN, "embedding": {"method": "rtn", **group, "targets": ["Embedding"]}}
    if "hqq" in str(group):
        groups["embedding"]["scheme"] = "w8a16-asym"
    with pytest.raises(BackendError, match=part):
        quantize(model, tmp_path / "out", groups, form)


def test_a_tied_embedding_is_refused(tmp_path: Path) -> None:
    model = families.make_model("llama-tied", tmp_path / "model")
    with pytest.raises(RecipeError, match="tied"):
        make_job(model, tmp_path / "out", with_embedding(RTN, "w8a16"))
