"""quantize_pack, quantize_activation and gptq_block wherever they run, against float64 and the native backend."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from emulation import HERE, Emulated, needs_compiler
from oracles_quantize import Ranges, gptq_followed, integer_codes, spread, unpacked
from places import CUDA, EMULATED, call, cases, everywhere, generator, numbers

from quantrecipe.errors import BackendError
from quantrecipe.kernels.gptq_block import quantize_columns
from quantrecipe.plugins.native.qparams import Storage, make_grid, quantize
from quantrecipe.schemes import QuantizationArgs

SHAPES = [(3, 64, 32), (5, 128, 0), (2, 96, 24), (1, 2120, 0), (7, 77, 0), (2, 9, 0), (4, 576, 64), (1, 8208, 0)]
DTYPES = [torch.float16, torch.bfloat16]


def weights(dtype: torch.dtype, rows: int, columns: int, group_size: int) -> torch.Tensor:
    """With rows of small and of large numbers, a group of zeros, and one of a single sign."""
    random = generator()
    weight = numbers(random, dtype, rows, columns) * torch.from_numpy(10.0 ** random.integers(-3, 2, (rows, 1))).to(
        dtype
    )
    size = group_size or columns
    if rows > 1:
        weight[1, :size] = 0
    weight[-1, -size:] = weight[-1, -size:].abs()
    return weight


@cases(product(DTYPES, [True, False], [2, 3, 4, 5, 6, 8]), {(torch.float16, True, 4), (torch.bfloat16, False, 3)})
def test_quantize_pack(place: str, case: tuple[torch.dtype, bool, int]) -> None:
    dtype, symmetric, bits = case
    for rows, columns, group_size in SHAPES:
        weight = weights(dtype, rows, columns, group_size)
        packed, scales, zeros = call(place, "quantize_pack", weight, bits, group_size, symmetric, "int")
        groups = columns // group_size if group_size else 1
        wanted = Ranges.of(weight, groups).scale(bits, symmetric)
        wanted = torch.from_numpy(wanted).float().to(dtype)
        wanted[wanted == 0] = torch.finfo(dtype).eps
        assert torch.equal(scales, wanted)
        codes = unpacked(packed, bits, columns) if bits < 8 else packed.numpy().astype(np.int64) + 128
        middle = np.full((rows, groups), 2.0 ** (bits - 1))
        stored = middle if symmetric else zeros.double().numpy()
        if not symmetric:
            low = Ranges.of(weight, groups).low
            np.testing.assert_array_equal(stored, np.clip(np.rint(-low / scales.double().numpy()), 0, 2**bits - 1))
        assert symmetric == (zeros.numel() == 0)
        np.testing.assert_array_equal(codes, integer_codes(weight, scales, stored, bits))


@pytest.mark.parametrize("place", [EMULATED, CUDA])
@pytest.mark.parametrize("symmetric", [True, False])
def test_quantize_pack_is_the_native_backends_round_to_nearest(place: str, symmetric: bool) -> None:
    weight = weights(torch.bfloat16, 6, 256, 64)
    args = QuantizationArgs(num_bits=4, type="int", symmetric=symmetric, strategy="group", group_size=64)
    grid = make_grid(weight.float(), args, Storage(torch.bfloat16, torch.bfloat16))
    packed, scales, zeros = call(place, "quantize_pack", weight, 4, 64, symmetric, "int")
    assert torch.equal(scales, grid.scale)
    assert symmetric or torch.equal(zeros.to(torch.int16) - 8, grid.zero)
    np.testing.assert_array_equal(unpacked(packed, 4, 256) - 8, quantize(weight.float(), grid, 4).numpy())


@cases([(torch.bfloat16,), (torch.float16,)], {(torch.bfloat16,)})
def test_quantize_pack_to_fp8(place: str, case: tuple[torch.dtype]) -> None:
    (dtype,) = case
    for rows, columns, group_size in SHAPES:
        weight = weights(dtype, rows, columns, group_size)
        packed, scales, _ = call(place, "quantize_pack", weight, 8, group_size, True, "fp8")
        largest = weight.float().reshape(rows, -1, group_size or columns).abs().amax(-1)
        wanted = (largest / 448).to(dtype)
        wanted[wanted == 0] = torch.finfo(dtype).eps
        assert torch.equal(scales, wanted)
        steps = weight.float() / wanted.float().repeat_interleave(group_size or columns, 1)
        assert torch.equal(packed.view(torch.uint8), steps.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8))


@cases(
    product(["int8", "fp8"], DTYPES, [False, True]), {("int8", torch.float16, True), ("int8", torch.float16, False)}
)
def test_quantize_activation(place: str, case: tuple[str, torch.dtype, bool]) -> None:
    kind, dtype, smoothed = case
    for rows, columns, group_size in SHAPES:
        x = weights(dtype, rows, columns, group_size)
        factors = torch.rand(columns) + 0.2 if smoothed else None
        q, scales = call(place, "quantize_activation", x, kind, group_size, factors)
        value = x.float().numpy() / (np.float32(1) if factors is None else factors.numpy())
        largest = np.abs(value).reshape(rows, -1, group_size or columns).max(-1)
        wanted = largest / np.float32(127.5 if kind == "int8" else 448)
        wanted[wanted == 0] = np.finfo(np.float32).eps
        np.testing.assert_array_equal(scales.numpy(), wanted)
        steps = value / np.repeat(wanted, group_size or columns, axis=1)
        assert (
            steps.astype(np.float64) * spread(scales, columns) - value.astype(np.float64) < 1e-5 * np.abs(value).max()
        ).all()
        if kind == "int8":
            np.testing.assert_array_equal(q.numpy(), np.clip(np.rint(steps), -128, 127))
        else:
            codes = torch.from_numpy(steps).clamp(-448, 448).to(torch.float8_e4m3fn)
            assert torch.equal(q.view(torch.uint8), codes.view(torch.uint8))


@pytest.mark.parametrize("place", [EMULATED, CUDA])
def test_groups_that_are_no_multiple_of_8_are_refused(place: str) -> None:
    with pytest.raises(BackendError, match="a multiple of 8 on CUDA"):
        call(place, "quantize_pack", torch.ones(2, 24, dtype=torch.float16), 4, 12, True, "int")


@everywhere
@pytest.mark.parametrize(
    "shape",  # layers, rows, columns, groups, bits
    [(1, 37, 128, 1, 4), (2, 5, 128, 4, 3), (1, 33, 72, 2, 2), (3, 1, 1, 1, 8), (1, 64, 127, 3, 8)],
)
def test_gptq_block(place: str, shape: tuple[int, int, int, int, int]) -> None:
    layers, rows, columns, groups, bits = shape
    random = generator()
    weight = numbers(random, torch.float32, layers, rows, columns)
    hessian = numbers(random, torch.float64, layers, columns, 2 * columns)
    hessian = hessian @ hessian.mT + torch.eye(columns).double()
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True).float() + 7 * torch.ones(
        columns, columns
    ).tril(-1)
    scales = torch.from_numpy(random.uniform(0.5, 2, (layers, rows, groups)).astype(np.float32)) / 2 ** (bits - 1)
    zeros = torch.from_numpy(random.integers(-2, 2, scales.shape).astype(np.float32))
    group = torch.from_numpy(random.integers(0, groups, columns))
    codes, errors = call(place, "gptq_block", weight, factor, scales, zeros, group, bits)
    for layer in range(layers):
        s, z = (part[layer][:, group].double().numpy() for part in (scales, zeros))
        W, U = weight[layer].double().numpy(), factor[layer].double().numpy()
        wanted, expected = gptq_followed(W, U, s, z, codes[layer].numpy().astype(np.float64))
        nearest = np.clip(wanted, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        assert np.abs(codes[layer].numpy() - nearest).max() <= 0.5 + 1e-3
        np.testing.assert_allclose(errors[layer].numpy(), expected, rtol=2e-3, atol=2e-4)
        assert_as_compiled_loop(codes[layer], weight[layer], factor[layer], scales[layer], zeros[layer], group, bits)


def assert_as_compiled_loop(codes: torch.Tensor, *inputs: torch.Tensor | int) -> None:
    """The CPU's loop takes the same codes; a tie that fp32 breaks differently changes the rest of its row."""
    weight, factor, scales, zeros, group, bits = inputs
    found, errors = torch.empty_like(codes), torch.empty_like(weight)
    arrays = [part.contiguous().numpy() for part in (scales, zeros, group)]
    limits = float(-(2 ** (bits - 1))), float(2 ** (bits - 1) - 1)
    outputs = found.numpy(), errors.numpy()
    quantize_columns(weight.numpy(), factor.contiguous().numpy(), 0, weight.shape[1], *arrays, *limits, *outputs)
    assert (found != codes).any(1).sum() <= 1


@everywhere
def test_gptq_block_takes_slices_of_larger_matrices(place: str) -> None:
    random = generator()
    whole, factor = numbers(random, torch.float32, 9, 300), numbers(random, torch.float32, 300, 300).abs() + 1
    inputs = [torch.full((9, 1), 0.25), torch.zeros(9, 1), torch.zeros(128, dtype=torch.int64), 4]
    sliced = call(place, "gptq_block", whole[:, 100:228], factor[100:228, 100:228], *inputs)
    dense = call(place, "gptq_block", whole[:, 100:228].contiguous(), factor[100:228, 100:228].contiguous(), *inputs)
    assert all(torch.equal(one, other) for one, other in zip(sliced, dense, strict=True))


@needs_compiler
def test_divisor_rounds_as_ieee_division() -> None:
    random = generator()
    a, b = (
        random.standard_normal(200_000).astype(np.float32) * np.float32(2) ** random.integers(-20, 20, 200_000)
        for _ in "ab"
    )
    a[:1000] = b[:1000] * (random.integers(0, 256, 1000) + np.float32(0.5))  # ties of rounding to integers
    b[1000:2000] *= np.float32(2.0**-70)  # where it falls back to the division itself
    a, b = a.astype(np.float32), b.astype(np.float32)
    quotients = np.full_like(a, np.nan)
    Emulated(HERE / "probes" / "division.cu", "divide")([1], [1], 0, a, b, quotients, np.array([len(a)], np.int32))
    np.testing.assert_array_equal(quotients, a / b)
