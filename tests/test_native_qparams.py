"""Grids: scales, zero points, and quantize / dequantize as an exact pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantrecipe.errors import BackendError
from quantrecipe.plugins.native.methods.rtn import rtn_integers as rtn
from quantrecipe.plugins.native.qparams import Storage, code_range, dequantize, make_grid, quantize
from quantrecipe.schemes import WEIGHT_BITS, QuantizationArgs
from tests.reference.formats import round_to_nearest

F32 = Storage(torch.float32, torch.float32)
BF16 = Storage(torch.bfloat16, torch.bfloat16)
F16 = Storage(torch.float16, torch.float16)


def args_of(bits: int, symmetric: bool, group: int | None) -> QuantizationArgs:
    return QuantizationArgs(
        num_bits=bits, symmetric=symmetric, strategy="group" if group else "channel", group_size=group
    )


def random(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bits", WEIGHT_BITS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [None, 16])
def test_rtn_is_the_formula(bits: int, symmetric: bool, group: int | None) -> None:
    weight = random(9, 48, bits)
    got = rtn(weight, args_of(bits, symmetric, group), F32)
    codes, scale, zero = round_to_nearest(weight.double().numpy(), bits, group or 48, symmetric)
    half = 2 ** (bits - 1)
    assert np.allclose(got.grid.scale, scale, rtol=1e-6)
    assert (got.codes.numpy().astype(int) + half == codes).mean() > 0.99  # a tie may fall either way in fp32
    if got.grid.zero is not None:
        assert (got.grid.zero.numpy() + half == zero).mean() > 0.99


@pytest.mark.parametrize("bits", WEIGHT_BITS)
def test_symmetric_scales_are_the_librarys(bits: int) -> None:
    from compressed_tensors.quantization import QuantizationArgs as LibraryArgs
    from compressed_tensors.quantization.utils import calculate_qparams

    weight = random(9, 48, bits)
    theirs, _ = calculate_qparams(
        weight.amin(1, keepdim=True), weight.amax(1, keepdim=True), LibraryArgs(num_bits=bits, strategy="channel")
    )
    assert torch.allclose(make_grid(weight, args_of(bits, True, None), F32).scale, theirs, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from(WEIGHT_BITS),
    symmetric=st.booleans(),
    rows=st.integers(1, 7),
    groups=st.integers(1, 4),
    size=st.integers(1, 19),
    storage=st.sampled_from([F32, BF16, F16]),
    power=st.integers(-9, 3),
    seed=st.integers(0, 1000),
)
def test_codes_survive_dequantize_and_quantize(  # noqa: PLR0917
    bits: int, symmetric: bool, rows: int, groups: int, size: int, storage: Storage, power: int, seed: int
) -> None:
    weight = random(rows, groups * size, seed) * 10.0**power
    args = args_of(bits, symmetric, size)
    grid = make_grid(weight, args, storage)
    codes = quantize(weight, grid, bits)
    low, high = code_range(bits)
    assert grid.scale.dtype == storage.scale_dtype and bool((grid.scale > 0).all())
    assert int(codes.min()) >= low and int(codes.max()) <= high
    assert torch.equal(quantize(dequantize(codes, grid, torch.float32), grid, bits), codes)
    if grid.zero is not None:
        assert int(grid.zero.min()) >= low and int(grid.zero.max()) <= high


@settings(max_examples=40, deadline=None)
@given(bits=st.sampled_from(WEIGHT_BITS), symmetric=st.booleans(), seed=st.integers(0, 1000))
def test_error_is_at_most_half_a_step_inside_the_range(bits: int, symmetric: bool, seed: int) -> None:
    weight = random(5, 32, seed)
    quantized = rtn(weight, args_of(bits, symmetric, 16), F32)
    error = (dequantize(quantized.codes, quantized.grid) - weight).abs()
    step = quantized.grid.scale.repeat_interleave(16, 1)
    # symmetric grids clip the greatest positive weight by half a step; a rounded zero point by half a step
    assert bool((error <= step * (1.0 if not symmetric else 0.5) + 1e-6).all())


@pytest.mark.parametrize("symmetric", [True, False])
def test_empty_groups_stay_zero(symmetric: bool) -> None:
    weight = random(3, 32, 0)
    weight[1, 16:] = 0
    quantized = rtn(weight, args_of(4, symmetric, 16), F16)
    assert bool((dequantize(quantized.codes, quantized.grid)[1, 16:] == 0).all())


def test_scales_are_rounded_before_codes_are_chosen() -> None:
    weight = random(4, 64, 3)
    quantized = rtn(weight, args_of(8, True, None), BF16)
    assert torch.equal(quantized.codes, quantize(weight, quantized.grid, 8))
    exact = make_grid(weight, args_of(8, True, None), F32)
    assert not torch.equal(quantized.codes, quantize(weight, exact, 8))


def test_least_zero_of_v1() -> None:
    weight = random(4, 16, 3).abs()
    grid = make_grid(weight, args_of(4, False, 16), Storage(torch.float16, torch.float16, min_zero=1))
    assert grid.zero is not None and int(grid.zero.min()) + 8 == 1


def test_overflow_says_the_value_and_the_remedy() -> None:
    with pytest.raises(BackendError, match=r"float16: .*65504.*compressed-tensors"):
        make_grid(torch.full((1, 16), 1e8), args_of(4, True, 16), F16)


def test_one_scale_a_tensor() -> None:
    grid = make_grid(random(4, 16, 1), QuantizationArgs(num_bits=8, strategy="tensor"), F32)
    assert grid.scale.shape == (1, 1)
