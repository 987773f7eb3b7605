"""Linear operators against float64 oracles: shapes with odd N and K, 1 to 300 rows, new numbers every time."""

from __future__ import annotations

import pytest
import torch

from quantrecipe.errors import BackendError
from quantrecipe.kernels import ops
from tests.kernels import oracles

OPS = torch.ops.quantrecipe
PLACES = [pytest.param("cpu"), pytest.param("cuda", marks=pytest.mark.gpu)]
everywhere = pytest.mark.parametrize("place", PLACES)
#: M, N, K, group size
SHAPES = [(1, 48, 256, 64), (2, 33, 77, 0), (3, 7, 96, 32), (4, 64, 192, 64), (5, 9, 99, 11), (17, 50, 576, 64),
          (300, 31, 130, 0), (2, 128, 256, 128), (21, 192, 64, 0), (20, 64, 96, 32), (300, 64, 512, 256),
          (6, 48, 80, 0)]  # fmt: skip
#: Share of the norm that rounding to each type may cost: inputs are given in it, outputs rounded to it.
LIMIT = {torch.bfloat16: 4e-3, torch.float16: 6e-4, torch.float32: 2e-6}


@pytest.fixture(autouse=True)
def poisoned() -> object:
    """torch.empty gives NaN and the greatest integers."""
    seed = int(torch.seed())
    print("seed", seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def call(place: str, name: str, *arguments: object) -> torch.Tensor:
    given = [one.to(place) if isinstance(one, torch.Tensor) else one for one in arguments]
    found = getattr(OPS, name)(*given)
    return tuple(one.cpu() for one in found) if isinstance(found, tuple) else found.cpu()


def case_of(n: int, k: int, bits: int, group: int, dtype: torch.dtype, zeros: str) -> oracles.Case:  # noqa: PLR0917
    groups = k // group if group else 1
    scales = (torch.rand(n, groups) + 0.1).to(dtype)
    points = {
        "none": None,
        "whole": torch.randint(0, 2**bits, (n, groups)).to(dtype),
        "any": (torch.rand(n, groups) * 2**bits).to(dtype),
    }
    return oracles.Case(torch.randint(0, 2**bits, (n, k)), scales, points[zeros], bits)


def packed_of(place: str, case: oracles.Case, group: int) -> list[torch.Tensor]:
    given = case.codes.to(torch.uint8), case.scales, case.zeros, case.bits, group, case.scales.dtype
    return list(call(place, "repack", *given))


@everywhere
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("zeros", ["none", "whole", "any"])
def test_weight_only(place: str, dtype: torch.dtype, bits: int, zeros: str) -> None:
    for m, n, k, group in SHAPES:
        case = case_of(n, k, bits, group, dtype, zeros)
        x, bias = torch.randn(m, k).to(dtype), torch.randn(n).to(dtype) if m % 2 else None
        found = call(place, "linear_weight_only", x, *packed_of(place, case, group), bias, bits, group, n)
        assert found.dtype == dtype
        assert oracles.relative_error(found, oracles.weight_only(x, case, bias)) < LIMIT[dtype], (m, n, k, group)


@everywhere
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_dequantize_is_rounded_once(place: str, bits: int) -> None:
    for _, n, k, group in SHAPES:
        case = case_of(n, k, bits, group, torch.bfloat16, "whole")
        found = call(place, "dequantize", *packed_of(place, case, group), bits, group, k, torch.bfloat16)
        assert torch.equal(found, case.weight().to(torch.bfloat16))


@everywhere
def test_leading_dimensions_stay(place: str) -> None:
    case, x = case_of(9, 64, 4, 32, torch.bfloat16, "none"), torch.randn(2, 3, 64).bfloat16()
    found = call(place, "linear_weight_only", x, *packed_of(place, case, 32), None, 4, 32, 9)
    assert found.shape == (2, 3, 9)
    assert call(place, "linear_weight_only", x[:0], *packed_of(place, case, 32), None, 4, 32, 9).shape == (0, 3, 9)


@everywhere
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_w8a8(place: str, zeros: bool, dtype: torch.dtype) -> None:
    for m, n, k in ((1, 33, 64), (7, 48, 160), (12, 9, 96), (13, 65, 80), (300, 16, 64)):
        q, weight = (torch.randint(-128, 128, (rows, k), dtype=torch.int8) for rows in (m, n))
        xs, ws, bias = torch.rand(m) / 100, torch.rand(n) / 10, torch.randn(n)  # sums within fp16
        points = torch.randint(-128, 128, (m,), dtype=torch.int32) if zeros else None
        wanted = oracles.w8a8(q, xs, weight, ws, points) + bias.double()
        found = call(place, "linear_w8a8", q, xs, weight, ws, points, None, bias, dtype)
        assert oracles.relative_error(found, wanted) < LIMIT[dtype]
        if zeros:
            sums = weight.sum(1, dtype=torch.int32)
            assert torch.equal(call(place, "linear_w8a8", q, xs, weight, ws, points, sums, bias, dtype), found)


@pytest.mark.parametrize("k", [63, 77])
def test_w8a8_with_odd_columns_on_cpu(k: int) -> None:
    for m in (1, 40):
        q, weight = (torch.randint(-128, 128, (rows, k), dtype=torch.int8) for rows in (m, 31))
        wanted = oracles.w8a8(q, torch.ones(m), weight, torch.ones(31))
        found = OPS.linear_w8a8(q, torch.ones(m), weight, torch.ones(31), None, None, None, torch.float32)
        assert torch.equal(found.double(), wanted)


@everywhere
@pytest.mark.parametrize("group", [0, 32])
def test_w4a8(place: str, group: int) -> None:
    for m, n, k in ((1, 33, 64), (9, 48, 160), (40, 65, 96), (300, 16, 64)):
        codes, q = torch.randint(0, 16, (n, k), dtype=torch.uint8), torch.randint(-128, 128, (m, k), dtype=torch.int8)
        groups = torch.randint(1, 16, (n, k // group), dtype=torch.int8) if group else None
        xs, ws = torch.rand(m), torch.rand(n)
        packed = call(place, "repack_w4a8", codes)
        found = call(place, "linear_w4a8", q, xs, packed, ws, groups, None, group, torch.bfloat16)
        assert oracles.relative_error(found, oracles.w4a8(q, xs, codes, ws, groups)) < LIMIT[torch.bfloat16]


@everywhere
def test_fp8(place: str) -> None:
    for m, n, k in ((1, 33, 64), (3, 9, 77), (40, 64, 96)):
        x, weight = torch.randn(m, k).bfloat16(), torch.randn(n, k).to(torch.float8_e4m3fn)
        weight.view(torch.uint8)[0, :16] = torch.arange(16)  # subnormals and the least normal numbers
        xs, ws, bias = torch.rand(m), torch.rand(n), torch.randn(n)
        dense = weight.double() * ws.double().unsqueeze(1)
        found = call(place, "linear_fp8", x, None, weight, ws, bias, torch.bfloat16)
        assert oracles.relative_error(found, x.double() @ dense.t() + bias.double()) < LIMIT[torch.bfloat16]
        q = x.to(torch.float8_e4m3fn)
        found = call(place, "linear_fp8", q, xs, weight, ws, bias, torch.bfloat16)
        wanted = (q.double() * xs.double().unsqueeze(1)) @ dense.t() + bias.double()
        assert oracles.relative_error(found, wanted) < LIMIT[torch.bfloat16]


@everywhere
def test_llm_int8(place: str) -> None:
    for m, n, k, outliers in ((1, 33, 64, 1), (5, 9, 96, 0), (20, 48, 160, 3), (300, 16, 64, 64)):
        x, weight = torch.randn(m, k).clamp(-3, 3).bfloat16(), torch.randint(-127, 128, (n, k), dtype=torch.int8)
        x[torch.randint(0, m, (outliers,)), torch.randperm(k)[:outliers]] = 20.0
        ws = torch.rand(n)
        found = call(place, "linear_llm_int8", x, weight, ws, 6.0, None)
        assert oracles.relative_error(found, oracles.llm_int8(x, weight, ws, 6.0)) < 2 * LIMIT[torch.bfloat16]


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    case = case_of(8, 64, 4, 32, torch.bfloat16, "none")
    packed, scales, zeros = packed_of("cpu", case, 32)
    x = torch.randn(2, 64).bfloat16()
    for wrong in (
        lambda: OPS.linear_weight_only(x, packed, scales, zeros, None, 4, 24, 8),
        lambda: OPS.linear_weight_only(x[:, :63], packed, scales, zeros, None, 4, 0, 8),
        lambda: OPS.linear_weight_only(x, packed, scales, zeros, None, 4, 64, 8),
        lambda: OPS.linear_weight_only(x, packed, scales, zeros, None, 7, 32, 8),
        lambda: OPS.linear_w8a8(x, torch.ones(2), x, torch.ones(2), None, None, None, torch.float32),
        lambda: OPS.quantize_activation(x, "int9"),
        lambda: OPS.quantize_pack(x, 4, 24, True),
    ):
        with pytest.raises(BackendError) as caught:
            wrong()
        assert "\n" not in str(caught.value)


def _samples() -> dict[str, tuple[object, ...]]:
    case = case_of(8, 64, 4, 32, torch.bfloat16, "whole")
    packed, scales, zeros = packed_of("cpu", case, 32)
    x, q = torch.randn(3, 64).bfloat16(), torch.randint(-128, 128, (3, 64), dtype=torch.int8)
    w8, rows, columns = torch.randint(-127, 128, (8, 64), dtype=torch.int8), torch.rand(3), torch.rand(8)
    return {
        "quantize_pack": (torch.randn(4, 64), 3, 32, False),
        "quantize_activation": (x, "int8", 32, torch.rand(64) + 0.1),
        "repack": (case.codes.to(torch.uint8), case.scales, case.zeros, 4, 32, torch.bfloat16),
        "linear_weight_only": (x, packed, scales, zeros, None, 4, 32, 8),
        "linear_w8a8": (q, rows, w8, columns, torch.ones(3, dtype=torch.int32), None, None, torch.bfloat16),
        "repack_w4a8": (case.codes.to(torch.uint8),),
        "linear_w4a8": (q, rows, packed, columns, None, None, 0, torch.bfloat16),
        "linear_fp8": (x, None, w8.float().to(torch.float8_e4m3fn), columns, None, torch.bfloat16),
        "linear_llm_int8": (x, w8, columns, 6.0, None),
        "gptq_block": (torch.randn(8, 64), torch.eye(64), torch.rand(8, 2) + 0.1, torch.zeros(8, 2),
                       torch.arange(64) // 32, 4),
        "dequantize": (packed, scales, zeros, 4, 32, 64, torch.bfloat16),
    }  # fmt: skip


@pytest.mark.parametrize("name", ops.SCHEMAS)
def test_fakes_agree_with_what_runs(name: str) -> None:
    torch.use_deterministic_algorithms(False)
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    skipped = 1 if name == "linear_fp8" else 0  # test_schema compares inputs by a product that fp8 lacks
    torch.library.opcheck(getattr(OPS, name).default, _samples()[name], test_utils=utilities[skipped:])


def test_compiles_as_one_graph() -> None:
    case, x = case_of(9, 64, 4, 32, torch.bfloat16, "none"), torch.randn(3, 64).bfloat16()
    packed, scales, zeros = packed_of("cpu", case, 32)

    def layer(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(OPS.linear_weight_only(x, packed, scales, zeros, None, 4, 32, 9)) + 1

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), layer(x))
