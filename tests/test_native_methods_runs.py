"""Every method and number type through the native backend on small random models, read back by loaders not ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quantrecipe.errors import BackendError, RecipeError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.stream import Stream
from quantrecipe.plugins.native.kv_cache import KeyValueRounding, apply_kv_scheme, cached_attention
from quantrecipe.plugins.native.load import load
from quantrecipe.recipe_file import parse_recipe
from quantrecipe.schemes import QuantizationArgs
from tests import families
from tests.native_jobs import load_with_transformers, quantize, tokens
from tests.test_native_backend import check_reload

INT8 = {"num_bits": 8, "strategy": "channel"}
FP8 = {"num_bits": 8, "type": "float"}


def inputs(weights: dict[str, Any], **args: Any) -> dict[str, Any]:
    return {"weights": weights, "input_activations": {"num_bits": 8, **args}}


TRANSFORMERS: dict[str, dict[str, Any]] = {
    "fp8": {"scheme": "fp8"},
    "fp8-weights": {"weights": {**FP8, "strategy": "channel"}},
    "fp8-static": inputs({**FP8, "strategy": "tensor"}, type="float", strategy="tensor"),
    "fp8-block": inputs({**FP8, "strategy": "block", "block_structure": [32, 32]}, type="float", group_size=32,
                        dynamic=True),
    "int8-asymmetric-inputs": inputs(INT8, strategy="token", dynamic=True, symmetric=False),
    "int8-tensor": inputs(INT8, strategy="tensor", dynamic=True),
    "int8-groups": {"scheme": "w4a8-g32-ag16"},
    "int8-static": {**inputs(INT8, strategy="tensor", observer="mse"), "method": "gptq"},
    "int8-static-asymmetric": inputs(INT8, strategy="tensor", symmetric=False, observer="percentile"),
    "w4a4": {"scheme": "w4a4-g32"},
    "awq-clip": {"scheme": "w3a16-g32-asym", "method": "awq-clip"},
    "odyssey": {"scheme": "w4a8", "method": {"name": "odyssey", "steps": 5}},
    "glm-int4": {"scheme": "w4a16", "method": "glm-int4"},
    "hqq": {"scheme": "w3a16-g32-asym", "method": "hqq"},
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMERS)
@torch.inference_mode()
def test_transformers_reads_back_what_was_meant(name: str, tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    checkpoint = quantize(model, tmp_path / "out", {"main": TRANSFORMERS[name]})
    check_reload(load_with_transformers(checkpoint.path), checkpoint, tolerance=2e-4)


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4"])
@torch.inference_mode()
def test_transformers_reads_fp4_groups(name: str, tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model", torch.bfloat16)
    checkpoint = quantize(model, tmp_path / "out", {"main": name})
    loaded = load_with_transformers(checkpoint.path)
    ours = load(checkpoint.path, "cpu")
    for record in checkpoint.layers:
        weight = loaded.get_submodule(record.name).weight
        assert torch.equal(weight, ours.get_submodule(record.name).weight), record.name


@pytest.mark.parametrize("scheme", ["nf4", "nf4-dq", {"weights": {"num_bits": 4, "type": "fp4", "group_size": 32}}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_transformers_with_bitsandbytes_reads_four_bits(scheme: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    import transformers

    model = families.make_model("llama", tmp_path / "model", dtype)
    checkpoint = quantize(model, tmp_path / "out", {"main": scheme}, "bitsandbytes")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype=dtype).dequantize()
    ours = load(checkpoint.path, "cpu", dtype)
    for record in checkpoint.layers:
        weight = loaded.get_submodule(record.name).weight
        assert torch.equal(weight, ours.get_submodule(record.name).weight), record.name


@torch.inference_mode()
def test_transformers_with_bitsandbytes_computes_llm_int8(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    import transformers

    model = families.make_model("llama", tmp_path / "model")
    group = {"scheme": "w8a8", "method": {"name": "llm-int8", "threshold": 2.0}}
    checkpoint = quantize(model, tmp_path / "out", {"main": group}, "bitsandbytes")
    config = transformers.AutoConfig.from_pretrained(checkpoint.path)
    assert config.quantization_config["llm_int8_threshold"] == 2.0
    loaded = transformers.AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype=torch.float32)
    logits = loaded(tokens(2, 24, seed=2)).logits
    assert checkpoint.witness_logits is not None
    scale = float(checkpoint.witness_logits.abs().max())
    assert float((logits - checkpoint.witness_logits).abs().max()) < 0.02 * scale  # it casts inputs to fp16 first


OWN: dict[str, dict[str, Any]] = {
    "olive": {"scheme": "w4a16", "method": "olive"},
    "olive-groups": {"scheme": "w4a16-g32", "method": "olive"},
    "hqq": {"scheme": "w3a16-g32-asym", "method": "hqq"},
    "e5m2": inputs(
        {"num_bits": 8, "type": "e5m2", "strategy": "channel"}, type="e5m2", strategy="token", dynamic=True
    ),
    "gptq": {"scheme": "w4a8-g32", "method": "gptq"},
}


@pytest.mark.parametrize("name", OWN)
@torch.inference_mode()
def test_our_own_layout_reads_back(name: str, tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    checkpoint = quantize(model, tmp_path / "out", {"main": OWN[name]}, "quantrecipe")
    loaded = load(checkpoint.path, "cpu")
    for record in checkpoint.layers:
        from quantrecipe.modeling.digest import digest

        assert digest(loaded.get_submodule(record.name).weight) == record.digest


def test_hqq_loses_less_than_nearest_where_zeros_need_not_be_whole(tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    scheme = "w3a16-g32-asym"
    solved = quantize(model, tmp_path / "a", {"main": {"scheme": scheme, "method": "hqq"}}, "quantrecipe")
    nearest = quantize(model, tmp_path / "b", {"main": scheme}, "quantrecipe")
    for one, other in zip(solved.layers, nearest.layers, strict=True):
        assert one.relative_error < other.relative_error


@pytest.mark.parametrize("method", ["awq-clip", "odyssey"])
def test_clipping_loses_less_at_the_output_than_its_base(method: str, tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    base = "gptq" if method == "odyssey" else "rtn"
    clipped = quantize(model, tmp_path / "a", {"main": {"scheme": "w3a16", "method": method}})
    plain = quantize(model, tmp_path / "b", {"main": {"scheme": "w3a16", "method": base}})
    original = quantize(model, tmp_path / "w8", {"main": {"scheme": "w8a8"}}).witness_logits
    assert original is not None and clipped.witness_logits is not None
    errors = [record.relative_error for record in clipped.layers]
    assert errors != [record.relative_error for record in plain.layers]
    assert all(record.output_error is not None and record.output_error < 0.4 for record in clipped.layers)


KV: dict[str, dict[str, Any]] = {
    "token": {"num_bits": 8, "strategy": "token", "dynamic": True},
    "head": {"num_bits": 4, "group_size": 16, "dynamic": True},
    "fp8": {"num_bits": 8, "type": "float", "strategy": "tensor"},
    "static-heads": {"num_bits": 8, "strategy": "attn_head"},
}


@pytest.mark.parametrize("name", KV)
@torch.inference_mode()
def test_transformers_rounds_keys_and_values_as_the_witness_did(name: str, tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    checkpoint = quantize(model, tmp_path / "out", {"main": "w8a16"}, kv_cache=KV[name])
    check_reload(load_with_transformers(checkpoint.path), checkpoint, tolerance=2e-4)
    scales = [one for one in ModelFolder.open(checkpoint.path).names if one.endswith(("k_scale", "v_scale"))]
    assert len(scales) == (0 if KV[name].get("dynamic") else 6)


@pytest.mark.parametrize("family", ["opt", "bloom", "gpt-neox", "falcon"])
@torch.inference_mode()
def test_keys_and_values_of_other_families_are_rounded_too(family: str, tmp_path: Path) -> None:
    skeleton = Skeleton(ModelFolder.open(families.make_model(family, tmp_path / "model")))
    seen = []
    for block in skeleton.blocks:
        for module in cached_attention(block.module).values():
            cache = KeyValueRounding(QuantizationArgs(num_bits=8, strategy="attn_head"))
            cache.watch()
            apply_kv_scheme(module, cache)
            seen.append(cache)
    stream = Stream(skeleton, tokens(2, 24), 2)
    hidden = stream.enter()
    for index, block in enumerate(skeleton.blocks):
        skeleton.materialize(block.name)
        hidden = [stream.call(index, batch) for batch in hidden]
    for cache in seen:
        cache.settle(torch.float32)
        assert {name for name, _ in cache.tensors()} == {"k_scale", "v_scale"}
    assert len(seen) == 3


def test_a_cache_that_transformers_cannot_round_is_refused(tmp_path: Path) -> None:
    model = families.make_model("opt", tmp_path / "model")
    with pytest.raises(BackendError, match=r"kv_cache_scheme.*quantrecipe"):
        quantize(model, tmp_path / "out", {"main": "w8a16"}, kv_cache=KV["token"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("main: {scheme: w4a16, method: {name: hqq, iteratons: 3}}", "did you mean 'iterations'"),
        ("main: {scheme: w4a16, method: {name: odyssey, steps: 0}}", "greater than or equal to 1"),
        ("main: {weights: {num_bits: 8, strategy: attn_head}}", "weights are stored once"),
        ("main: {scheme: w8a16}\n  kv_cache_scheme: {num_bits: 8, strategy: token}", "dynamic"),
        ("main: {scheme: w8a16}\n  kv_cache_scheme: {num_bits: 8, strategy: channel}", "strategy token"),
        ("main: {weights: {num_bits: 8}, input_activations: {num_bits: 8, strategy: token}}", "dynamic: true"),
        ("main: {weights: {num_bits: 8, type: float, symmetric: false}}", "symmetric"),
        ("main: {weights: {num_bits: 8}, input_activations: {num_bits: 8, dynamic: true, observer: mse}}", "static"),
    ],
)
def test_nonsense_is_refused_by_the_recipe(text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        parse_recipe(f"model: {{id: demo}}\nquantization:\n  config_groups:\n    {text}\n")
