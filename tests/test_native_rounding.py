"""Activations rounded as compressed-tensors rounds them, bit for bit; static ranges; keys and values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.quantization.lifecycle.forward import fake_quantize as library_fake_quantize
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

from quantrecipe.plugins.native.formats.compressed_tensors import library_args
from quantrecipe.plugins.native.kv_cache import KeyValueRounding
from quantrecipe.plugins.native.observers import Observed
from quantrecipe.plugins.native.rounding import Fixed, fake_quantize_inputs
from quantrecipe.schemes import QuantizationArgs

INPUTS = [
    {"num_bits": 8, "strategy": "token"}, {"num_bits": 4, "strategy": "token"},
    {"num_bits": 8, "strategy": "token", "symmetric": False}, {"num_bits": 8, "strategy": "tensor"},
    {"num_bits": 6, "strategy": "tensor", "symmetric": False}, {"num_bits": 8, "group_size": 16},
    {"num_bits": 4, "group_size": 32, "symmetric": False}, {"num_bits": 8, "type": "float", "strategy": "token"},
    {"num_bits": 8, "type": "float", "group_size": 16},
]  # fmt: skip


def args_of(data: dict[str, Any], **more: Any) -> QuantizationArgs:
    return QuantizationArgs.model_validate({"dynamic": True, **data, **more})


def values(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 10 + 2
    x[0] = 0
    return x.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(2, 5, 64), (10, 64)])
@pytest.mark.parametrize("data", INPUTS, ids=str)
def test_inputs_are_rounded_bit_for_bit_as_the_library_does(
    data: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x, args = values(shape, dtype), args_of(data)
    theirs = library_args(args)
    scale, zero = compute_dynamic_scales_and_zp(x, theirs, torch.nn.Identity())
    want = library_fake_quantize(x, scale, zero, theirs)
    assert torch.equal(fake_quantize_inputs(x, args, as_transformers=True), want)


def test_a_scale_a_tensor_does_not_depend_on_the_batch() -> None:
    x, args = values((4, 6, 32)), args_of({"num_bits": 8, "strategy": "tensor"})
    alone = torch.cat([fake_quantize_inputs(one.unsqueeze(0), args) for one in x])
    assert torch.equal(fake_quantize_inputs(x, args), alone)


@pytest.mark.parametrize("symmetric", [True, False])
def test_min_max_spans_everything_and_matches_the_librarys_static_rounding(symmetric: bool) -> None:
    x = values((2, 7, 64))
    args = args_of({"num_bits": 8, "strategy": "tensor", "symmetric": symmetric}, dynamic=False)
    observed = Observed()
    for one in x:
        observed.add(one)
    fixed = observed.fixed(args, torch.float32)
    extent = float(x.abs().max()) / 127.5 if symmetric else float(x.max() - x.min()) / 255
    assert float(fixed.scale) == pytest.approx(extent, rel=1e-6)
    zero = torch.zeros(1) if fixed.zero is None else fixed.zero
    want = library_fake_quantize(x, fixed.scale, zero, library_args(args))
    assert torch.equal(fake_quantize_inputs(x, args, fixed), want)


def test_percentile_leaves_out_its_share() -> None:
    x = values((2, 40, 100))[1:]
    args = args_of({"num_bits": 8, "strategy": "tensor", "observer": "percentile", "percentile": 99.0}, dynamic=False)
    observed = Observed()
    observed.add(x)
    limit = float(observed.fixed(args, torch.float32).scale) * 127.5
    assert limit == pytest.approx(np.percentile(np.abs(x.numpy()), 99.0), rel=0.01)


def test_mse_beats_min_max_on_what_has_a_far_outlier() -> None:
    x = values((2, 50, 100))[1:]
    x[0, 3, 3] = 200.0
    errors = {}
    for observer in ("minmax", "mse"):
        args = args_of({"num_bits": 4, "strategy": "tensor", "observer": observer}, dynamic=False)
        observed = Observed()
        observed.add(x)
        rounded = fake_quantize_inputs(x, args, observed.fixed(args, torch.float32))
        errors[observer] = float((rounded - x).square().sum())
    assert errors["mse"] < 0.8 * errors["minmax"]


def test_the_sample_meets_every_channel() -> None:
    x = torch.zeros(1, 4096, 64)
    x[..., 37] = 5.0  # a stride of a power of two would miss it
    args = args_of({"num_bits": 8, "strategy": "tensor", "observer": "percentile", "percentile": 99.9}, dynamic=False)
    observed = Observed()
    observed.add(x)
    assert float(observed.fixed(args, torch.float32).scale) == pytest.approx(5 / 127.5)


@pytest.mark.parametrize(
    "data",
    [{"num_bits": 8, "strategy": "token"}, {"num_bits": 4, "group_size": 16},
     {"num_bits": 8, "type": "float", "group_size": 16}, {"num_bits": 4, "group_size": 16, "symmetric": False}],
    ids=str,
)  # fmt: skip
def test_keys_are_rounded_bit_for_bit_as_the_library_does(data: dict[str, Any]) -> None:
    x, args = values((2, 3, 5, 16), torch.bfloat16), args_of(data)
    theirs = library_args(args)
    scale, zero = compute_dynamic_scales_and_zp(x, theirs, torch.nn.Identity())
    want = library_fake_quantize(x, scale, zero, theirs)
    assert torch.equal(KeyValueRounding(args).apply("k", x, as_transformers=True), want)


def test_a_scale_a_token_spans_all_heads() -> None:
    x, args = values((2, 3, 5, 16)), args_of({"num_bits": 8, "strategy": "token"})
    found = KeyValueRounding(args).apply("v", x)
    flat = x.transpose(1, 2).reshape(2, 5, 48)
    want = fake_quantize_inputs(flat, args).reshape(2, 5, 3, 16).transpose(1, 2)
    assert torch.equal(found, want)


@pytest.mark.parametrize("strategy", ["tensor", "attn_head"])
def test_static_scales_of_keys_are_those_of_what_was_seen(strategy: str) -> None:
    x = values((2, 3, 5, 16))
    cache = KeyValueRounding(args_of({"num_bits": 8, "strategy": strategy}, dynamic=False))
    cache.watch()
    assert torch.equal(cache.apply("k", x), x)
    cache.apply("v", x * 2)
    cache.settle(torch.float32)
    tensors = dict(cache.tensors())
    largest = x.abs().amax() if strategy == "tensor" else x.abs().amax(dim=(0, 2, 3)).view(-1, 1, 1)
    assert torch.allclose(tensors["k_scale"], largest / 127.5)
    assert torch.allclose(tensors["v_scale"], 2 * largest / 127.5)
    theirs = library_args(cache.args)
    want = library_fake_quantize(x, tensors["k_scale"], torch.zeros_like(tensors["k_scale"]), theirs)
    assert torch.equal(cache.apply("k", x), want)


def test_a_zero_scale_becomes_eps() -> None:
    args = args_of({"num_bits": 8, "strategy": "token"})
    assert torch.equal(fake_quantize_inputs(torch.zeros(1, 2, 8), args), torch.zeros(1, 2, 8))
    assert isinstance(Fixed(torch.ones(1)).zero, type(None))
