"""Keys and values kept as codes: token by token the logits that scoring computes, in the bytes of the scheme."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from quantrecipe.modeling.skeleton import local_path
from quantrecipe.plugins.native.kv_cache import KeyValueRounding
from quantrecipe.plugins.native.rounding import Fixed
from quantrecipe.runner.cli import cli
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.quantized_cache import Kept, QuantizedCache, cache_bytes
from quantrecipe.runner.serving import Service, serve, stream
from quantrecipe.schemes import QuantizationArgs
from tests.families import make_model
from tests.native_jobs import quantize, tokens
from tests.runner_models import add_tokenizer

SCHEMES: dict[str, dict[str, Any]] = {
    "int8 a token": {"num_bits": 8, "strategy": "token", "dynamic": True},
    "int4 a group": {"num_bits": 4, "group_size": 16, "dynamic": True},
    "int4 a token, asymmetric": {"num_bits": 4, "strategy": "token", "dynamic": True, "symmetric": False},
    "fp8 a layer": {"num_bits": 8, "type": "float", "strategy": "tensor"},
    "int8 a head": {"num_bits": 8, "strategy": "attn_head"},
}
#: Sums of one row end otherwise in the last bit than sums of many, which makes another code of a near tie; of 4 bits
#: the greatest of every group is one.
ROUNDED = 8e-3
#: Bytes of a token: keys and values of 3 layers in fp32, of llama with 2 heads of 16 and OPT with 4.
LAYERS, HEADS, SIZE = 3, {"llama": 2, "opt": 4, "gpt-neox": 4}, 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SCHEMES)
def test_tokens_one_by_one_are_what_scoring_rounds_at_once(name: str, dtype: torch.dtype) -> None:
    values = torch.randn(2, 3, 9, 32).to(dtype)
    rounding = KeyValueRounding(QuantizationArgs(**SCHEMES[name]))
    if not rounding.args.dynamic:
        rounding.fixed["k"] = Fixed(values.abs().amax((0, 2, 3)).view(3, 1, 1) / 100)
    kept = Kept(rounding, "k")
    for part in values.split([4, 1, 1, 3], dim=2):
        found = kept.add(part)
    assert found.dtype == dtype
    assert torch.equal(found, rounding.apply("k", values))
    assert all(one is None or one.element_size() == 1 or one.shape[-1] == 1 for one in kept.tensors)
    kept.select(torch.tensor([1, 1]))
    assert kept.tensors[0] is not None and torch.equal(kept.tensors[0][0], kept.tensors[0][1])


def by_hand(args: dict[str, Any], heads: int) -> float:
    """Codes, and an fp32 scale (with a byte of zero point) a token or a group where they are dynamic."""
    scales = {"token": 1, None: heads * SIZE // args.get("group_size", SIZE)}.get(args.get("strategy"), 0)
    zero = 0 if args.get("symmetric", True) else 1
    return 2 * LAYERS * (heads * SIZE * args["num_bits"] / 8 + scales * (4 + zero))


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("family", ["llama", "opt", "gpt-neox"])
def test_writing_computes_what_scoring_computes(family: str, name: str, tmp_path: Path) -> None:
    model = make_model(family, tmp_path / "model")
    quantize(model, tmp_path / "out", {"main": "w8a16"}, "quantrecipe", kv_cache=SCHEMES[name])
    check(tmp_path / "out", 160, by_hand(SCHEMES[name], HEADS[family]), 0.1 if "int4" in name else ROUNDED)


def check(folder: Path, vocabulary: int, wanted_bytes: float, limit: float = ROUNDED) -> None:
    given, how = tokens(1, 20, vocabulary, seed=3), Service(dtype=torch.float32)
    scorer = stream(folder, how)
    scorer.run(given, Quiet())
    wanted = scorer.logits(0, 0, given.shape[1])
    model, past, found = serve(folder, how).model, None, []
    for part in (given[:, :7], *given[:, 7:].split(1, dim=1)):
        with torch.inference_mode():
            output = model(part, past_key_values=past, use_cache=True)
        past = output.past_key_values
        found.append(output.logits)
    with torch.inference_mode():
        torch.testing.assert_close(model(given).logits, wanted, rtol=1e-4, atol=1e-4)
    assert float((torch.cat(found, dim=1) - wanted).norm() / wanted.norm()) < limit
    assert isinstance(past, QuantizedCache)
    assert cache_bytes(past) == pytest.approx(wanted_bytes)


def test_the_demo(tmp_path: Path) -> None:
    scheme = {"num_bits": 8, "strategy": "token", "dynamic": True}
    quantize(local_path("demo"), tmp_path, {"main": {"scheme": "w4a16-g64", "method": "rtn"}}, kv_cache=scheme)
    check(tmp_path, 2000, 2 * 4 * (2 * 64 + 4))


def test_a_window_that_slides_and_a_library_that_generates(tmp_path: Path) -> None:
    model = make_model("mistral", tmp_path / "model")  # a window of 16 tokens
    quantize(model, tmp_path / "out", {"main": "w8a16"}, kv_cache=SCHEMES["int8 a token"])
    check(tmp_path / "out", 160, by_hand(SCHEMES["int8 a token"], 2))
    loaded = serve(tmp_path / "out", Service(dtype=torch.float32)).model
    text = tokens(1, 6, seed=1)
    written = loaded.generate(text, max_new_tokens=8, do_sample=False, eos_token_id=None, num_beams=1)
    with torch.inference_mode():
        for place in range(6, written.shape[1]):
            assert int(loaded(written[:, :place]).logits[0, -1].argmax()) == int(written[0, place])


def test_generate_says_what_a_token_takes(tmp_path: Path) -> None:
    model = make_model("llama", tmp_path / "model")
    add_tokenizer(model)
    quantize(model, tmp_path / "out", {"main": "w8a16"}, kv_cache=SCHEMES["int8 a token"])
    add_tokenizer(tmp_path / "out")
    words = ["generate", str(tmp_path / "out"), "--prompt", "the sea", "--max-new-tokens", "3"]
    words += ["--against", str(model)]
    result = CliRunner().invoke(cli, [*words, "--format", "json"])
    assert result.exit_code == 0, result.output
    first, second = json.loads(result.output)["models"]
    assert first["cache_bytes"] == pytest.approx(by_hand(SCHEMES["int8 a token"], 2))
    assert (first["cache"], second["cache"]) == ("int8, a scale a token", "float32")
    assert second["cache_bytes"] == 2 * LAYERS * 2 * SIZE * 4
    assert "int8, a scale a token" in CliRunner().invoke(cli, words).output
