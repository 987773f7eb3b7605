"""The matrix kernels wherever they run, against float64 oracles: shapes of models, odd ones, 1 to 300 rows of x."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from emulation import needs_compiler
from numpy.random import Generator
from places import CUDA, EMULATED, call, cases, generator, numbers

from quantrecipe.errors import BackendError
from tests.kernels import oracles

HALF, BRAIN = torch.float16, torch.bfloat16
#: Share of the norm: inputs are exact in the type, the weight is rounded to it once, y once.
LIMIT = {HALF: 6e-4, BRAIN: 4e-3}
on_device = pytest.mark.parametrize("place", [EMULATED, CUDA])


def integers(random: Generator, low: int, high: int, *shape: int, dtype: torch.dtype = torch.int8) -> torch.Tensor:
    return torch.from_numpy(random.integers(low, high, shape)).to(dtype)


def random_case(  # noqa: PLR0917
    random: Generator, n: int, k: int, bits: int, group: int, dtype: torch.dtype, zeros: bool
) -> oracles.Case:
    groups = k // group if group else 1
    scales = torch.from_numpy(random.uniform(0.1, 1.1, (n, groups))).to(dtype)
    points = integers(random, 0, 2**bits, n, groups, dtype=torch.int64).to(dtype) if zeros else None
    return oracles.Case(integers(random, 0, 2**bits, n, k, dtype=torch.int64), scales, points, bits)


def multiply(place: str, x: torch.Tensor, case: oracles.Case, group: int, bias: torch.Tensor | None) -> torch.Tensor:
    n = len(case.codes)
    packed = call(place, "repack", case.codes.to(torch.uint8), case.scales, case.zeros, case.bits, group, x.dtype)
    return call(place, "linear_weight_only", x, *packed, bias, case.bits, group, n)


def check_weight_only(place: str, dtype: torch.dtype, bits: int, zeros: bool, shapes: list[tuple[int, ...]]) -> None:
    random = generator()
    for m, n, k, group in shapes:
        case = random_case(random, n, k, bits, group, dtype, zeros)
        x, bias = numbers(random, dtype, m, k), numbers(random, dtype, n) if m % 2 else None
        found = multiply(place, x, case, group, bias)
        assert found.dtype == dtype and found.shape == (m, n)
        error = oracles.relative_error(found, oracles.weight_only(x, case, bias))
        assert error < LIMIT[dtype], (m, n, k, group)


#: Few rows of x: whole and ragged tiles, columns that several blocks share, one group and several.
FEW = [(1, 64, 1024, 128), (3, 17, 192, 64), (8, 33, 448, 32), (5, 16, 2880, 0), (2, 19, 16, 16), (4, 40, 200, 40)]


@cases(product([HALF, BRAIN], [2, 3, 4, 5, 6, 8], [False, True]), {(HALF, 4, True), (BRAIN, 3, True)})
def test_gemv(place: str, case: tuple[torch.dtype, int, bool]) -> None:
    check_weight_only(place, *case, [shape for shape in FEW if shape[3] % 16 == 0])


@cases(product([HALF, BRAIN], [2, 4, 8], [False, True]), {(HALF, 4, True)})
def test_gemv_with_groups_that_a_lane_cannot_hold(place: str, case: tuple[torch.dtype, int, bool]) -> None:
    check_weight_only(place, *case, [(4, 40, 200, 40), (7, 9, 99, 11), (1, 58, 132, 2), (2, 45, 21, 1)])


#: Rows of x that need each tile, one and two tiles of rows; stripes cut tiles of outputs in two and in three.
MANY = [(9, 70, 640, 64), (16, 64, 256, 0), (25, 193, 320, 16), (50, 130, 1000, 200), (77, 257, 144, 48)]


@cases(product([HALF, BRAIN], [2, 3, 4, 5, 6, 8], [False, True]), {(HALF, 4, True)})
def test_gemm(place: str, case: tuple[torch.dtype, int, bool]) -> None:
    check_weight_only(place, *case, [shape for shape in MANY if shape[3] % 16 == 0])


@on_device
def test_zero_points_need_not_be_whole(place: str) -> None:
    random = generator()
    for m in (3, 20):
        case = random_case(random, 40, 320, 4, 64, HALF, True)
        case.zeros = torch.from_numpy(random.uniform(0, 15, tuple(case.scales.shape))).to(HALF)
        x = numbers(random, HALF, m, 320)
        assert (
            oracles.relative_error(multiply(place, x, case, 64, None), oracles.weight_only(x, case, None))
            < 2 * LIMIT[HALF]
        )


@on_device
def test_plain_scales_will_do(place: str) -> None:
    random = generator()
    case, x = random_case(random, 33, 256, 4, 64, HALF, True), numbers(random, HALF, 2, 256)
    packed = call(place, "repack", case.codes.to(torch.uint8), case.scales, case.zeros, 4, 64, HALF)[0]
    found = call(place, "linear_weight_only", x, packed, case.scales, case.zeros, None, 4, 64, 33)
    assert torch.equal(found, multiply(place, x, case, 64, None))


@on_device
def test_the_same_sums_whatever_the_order_of_blocks(place: str) -> None:
    """Partial sums of cut tiles are added in a fixed order: twice the same bits."""
    random = generator()
    for m in (2, 12):
        case, x = random_case(random, 20, 3072, 4, 128, HALF, True), numbers(random, HALF, m, 3072)
        assert torch.equal(multiply(place, x, case, 128, None), multiply(place, x, case, 128, None))


def two_matrices(random: Generator, m: int, n: int, k: int) -> tuple[torch.Tensor, ...]:
    scales = [torch.from_numpy(random.uniform(0.001, 0.01, (rows,))).float() for rows in (m, n)]
    return integers(random, -128, 128, m, k), scales[0], integers(random, -128, 128, n, k), scales[1]


@cases(product([HALF, BRAIN], [False, True]), {(HALF, True)})
def test_w8a8(place: str, case: tuple[torch.dtype, bool]) -> None:
    (dtype, zeros), random = case, generator()
    for m, n, k in ((1, 70, 640), (16, 64, 16), (33, 129, 272), (70, 40, 1040), (130, 257, 144)):
        q, xs, weight, ws = two_matrices(random, m, n, k)
        points = integers(random, -128, 128, m, dtype=torch.int32) if zeros else None
        bias = numbers(random, dtype, n) if m % 2 else None
        found = call(place, "linear_w8a8", q, xs, weight, ws, points, None, bias, dtype)
        wanted = oracles.w8a8(q, xs, weight, ws, points) + (0 if bias is None else bias.double())
        assert oracles.relative_error(found, wanted) < LIMIT[dtype], (m, n, k)


@on_device
def test_sums_of_int8_are_exact(place: str) -> None:
    """Halves of K cancel but for one number; each alone is past what fp32 holds exactly."""
    half, n = 1536, 20
    q = torch.full((2, 2 * half), 127, dtype=torch.int8)
    weight = torch.full((n, 2 * half), 126, dtype=torch.int8)
    weight[:, half:] = -126
    q[0, -1], weight[:, -1] = 1, torch.arange(-126, -126 + n).to(torch.int8)
    ones = torch.ones(n)
    found = call(place, "linear_w8a8", q, ones[:2], weight, ones, None, None, None, HALF)
    assert torch.equal(found, (q.long() @ weight.long().t()).to(HALF))


@cases(product([HALF, BRAIN], [0, 16, 64]), {(BRAIN, 64)})
def test_w4a8(place: str, case: tuple[torch.dtype, int]) -> None:
    (dtype, group), random = case, generator()
    for m, n, k in ((1, 70, 640), (9, 64, 64), (40, 33, 1088), (70, 130, 192)):
        q, xs, _, ws = two_matrices(random, m, n, k)
        codes = integers(random, 0, 16, n, k, dtype=torch.uint8)
        groups = integers(random, 1, 17, n, k // group) if group else None
        bias = numbers(random, dtype, n) if m % 2 else None
        packed = call(place, "repack_w4a8", codes)
        found = call(place, "linear_w4a8", q, xs, packed, ws, groups, bias, group, dtype)
        wanted = oracles.w4a8(q, xs, codes, ws, groups) + (0 if bias is None else bias.double())
        assert oracles.relative_error(found, wanted) < LIMIT[dtype], (m, n, k)


@on_device
def test_w4a8_with_multipliers_of_any_sign(place: str) -> None:
    random = generator()
    q, xs, _, ws = two_matrices(random, 5, 20, 128)
    codes, groups = integers(random, 0, 16, 20, 128, dtype=torch.uint8), integers(random, -15, 17, 20, 2)
    found = call(place, "linear_w4a8", q, xs, call(place, "repack_w4a8", codes), ws, groups, None, 64, BRAIN)
    assert oracles.relative_error(found, oracles.w4a8(q, xs, codes, ws, groups)) < LIMIT[BRAIN]


@cases([(HALF,), (BRAIN,)], {(BRAIN,)})
def test_llm_int8(place: str, case: tuple[torch.dtype]) -> None:
    (dtype,) = case
    check_llm_int8(place, dtype, [(20, 33, 96, 0), (40, 130, 272, 21), (23, 16, 640, 1)])


@pytest.mark.slow
@on_device
def test_llm_int8_of_few_rows_and_of_many(place: str) -> None:
    check_llm_int8(place, BRAIN, [(1, 70, 640, 2), (16, 129, 1040, 17), (130, 16, 64, 64), (300, 200, 96, 5)])


def check_llm_int8(place: str, dtype: torch.dtype, shapes: list[tuple[int, ...]]) -> None:
    random = generator()
    for m, n, k, outliers in shapes:
        x, bias = numbers(random, dtype, m, k).clamp(-3, 3), numbers(random, dtype, n) if m % 2 else None
        columns = torch.from_numpy(random.permutation(k)[:outliers])
        x[integers(random, 0, m, outliers, dtype=torch.int64), columns] = 20.0
        _, _, weight, ws = two_matrices(random, m, n, k)
        found = call(place, "linear_llm_int8", x, weight, ws, 6.0, bias)
        wanted = oracles.llm_int8(x, weight, ws, 6.0) + (0 if bias is None else bias.double())
        assert oracles.relative_error(found, wanted) < 2 * LIMIT[dtype], (m, n, k, outliers)


@pytest.mark.slow
@on_device
@pytest.mark.parametrize("bits", [4, 8])
def test_weight_only_of_any_rows(place: str, bits: int) -> None:
    for m in (*range(1, 20), 31, 32, 33, 63, 64, 65, 127, 128, 129, 200, 255, 256):
        check_weight_only(place, HALF, bits, True, [(m, 131, 448, 64)])
    check_weight_only(
        place, BRAIN, bits, False, [(1, 4096, 576, 64), (3, 576, 1536, 64), (24, 1536, 576, 64), (300, 96, 576, 64)]
    )


@pytest.mark.slow
@on_device
def test_eight_bit_products_of_any_rows(place: str) -> None:
    random = generator()
    for m in (*range(1, 20), 31, 32, 33, 63, 64, 65, 127, 128, 129, 200, 255, 256, 300):
        q, xs, weight, ws = two_matrices(random, m, 131, 448)
        found = call(place, "linear_w8a8", q, xs, weight, ws, None, None, None, HALF)
        assert oracles.relative_error(found, oracles.w8a8(q, xs, weight, ws)) < LIMIT[HALF], m
        codes, groups = (weight.int() + 128).to(torch.uint8) // 16, integers(random, 1, 17, 131, 7)
        found = call(place, "linear_w4a8", q, xs, call(place, "repack_w4a8", codes), ws, groups, None, 64, HALF)
        assert oracles.relative_error(found, oracles.w4a8(q, xs, codes, ws, groups)) < LIMIT[HALF], m


@needs_compiler
def test_what_does_not_fit_is_refused_in_one_line() -> None:
    random = generator()
    q, xs, weight, ws = two_matrices(random, 2, 8, 40)
    packed = call("emulated", "repack_w4a8", weight.abs().to(torch.uint8) % 16)
    case = random_case(random, 8, 64, 4, 32, HALF, False)
    x, codes = numbers(random, HALF, 2, 64), case.codes.to(torch.uint8)
    units = call("emulated", "repack", codes, case.scales, None, 4, 32, HALF)[0]
    for name, *arguments in (
        ("linear_w8a8", q, xs, weight, ws, None, None, None, HALF),
        ("linear_w8a8", q[:, :32], xs, weight[:, :32].contiguous(), ws, None, None, None, torch.float32),
        ("linear_w4a8", q, xs, packed, ws, torch.ones(8, 5, dtype=torch.int8), None, 8, HALF),
        ("linear_w4a8", q, xs, packed, ws, torch.ones(8, 5, dtype=torch.int8), None, 7, HALF),
        ("linear_llm_int8", q.to(HALF), weight, ws, 6.0, None),
        ("linear_weight_only", x, units, case.scales, None, None, 4, 24, 8),
        ("linear_weight_only", x[:, :32], units[:, :0], case.scales[:, :1], None, None, 4, 32, 8),
        ("repack", codes, case.scales, None, 7, 32, HALF),
    ):
        with pytest.raises(BackendError) as caught:
            call("emulated", name, *arguments)
        assert "\n" not in str(caught.value)
