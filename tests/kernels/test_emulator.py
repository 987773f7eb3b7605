"""The emulator itself, against numpy and torch: fragments, barriers, shuffles, conversions, what it must catch."""

from __future__ import annotations

import ctypes
import secrets

import numpy as np
import pytest
import torch
from emulation import HERE, Emulated, Launched, needs_compiler
from numpy.random import Generator

pytestmark = needs_compiler
PROBES = HERE / "probes"
DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16}


@pytest.fixture
def random() -> Generator:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def numbers(random: Generator, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.from_numpy(random.standard_normal(shape)).to(dtype)


@pytest.mark.parametrize("scalar", DTYPES)
def test_mma_of_16_bit_numbers_is_a_matrix_product(scalar: str, random: Generator) -> None:
    A, B = numbers(random, DTYPES[scalar], 16, 16), numbers(random, DTYPES[scalar], 16, 8)
    D = torch.from_numpy(random.standard_normal((16, 8)).astype(np.float32))
    expected = D.double() + A.double() @ B.double()
    probe = Emulated(PROBES / "tensor_cores.cu", "product_16", [("SCALAR", scalar)])
    probe([1], [32], 0, A, B, D)
    torch.testing.assert_close(D.double(), expected, rtol=1e-6, atol=1e-6)


def test_mma_of_bytes_is_a_matrix_product(random: Generator) -> None:
    A, B = (random.integers(-128, 128, shape, dtype=np.int8) for shape in ((16, 32), (32, 8)))
    D = random.integers(-1000, 1000, (16, 8), dtype=np.int32)
    expected = D + A.astype(np.int32) @ B.astype(np.int32)
    Emulated(PROBES / "tensor_cores.cu", "product_32", [("SCALAR", "f16")])([1], [32], 0, A, B, D)
    np.testing.assert_array_equal(D, expected)


@pytest.mark.parametrize("scalar", DTYPES)
def test_cp_async_ldmatrix_and_its_transpose_feed_mma(scalar: str, random: Generator) -> None:
    A, B = numbers(random, DTYPES[scalar], 16, 16), numbers(random, DTYPES[scalar], 16, 8)
    D = torch.full((16, 8), torch.nan)
    probe = Emulated(PROBES / "tensor_cores.cu", "product_through_shared", [("SCALAR", scalar)])
    probe([1], [32], 768, A, B, D, ctypes.c_int(1))
    torch.testing.assert_close(D.double(), A.double() @ B.double(), rtol=1e-6, atol=1e-6)


def test_copies_that_nobody_waits_for_have_not_arrived(random: Generator) -> None:
    A, B = numbers(random, torch.float16, 16, 16), numbers(random, torch.float16, 16, 8)
    D = torch.zeros(16, 8)
    probe = Emulated(PROBES / "tensor_cores.cu", "product_through_shared", [("SCALAR", "f16")])
    probe([1], [32], 768, A, B, D, ctypes.c_int(0))
    assert D.isnan().all()


@pytest.mark.parametrize("threads", [32, 96, 1024])
def test_a_barrier_orders_shared_memory(threads: int, random: Generator) -> None:
    x = random.integers(0, 1 << 30, (3, threads), dtype=np.int32)
    y = np.zeros_like(x)
    Emulated(PROBES / "threads.cu", "reversed")([3], [threads], 4 * threads, x, y, seed=int(x[0, 0]))
    np.testing.assert_array_equal(y, x[:, ::-1])


def test_a_missing_barrier_shows() -> None:
    x = np.arange(256, dtype=np.int32)
    y = np.zeros_like(x)
    Emulated(PROBES / "threads.cu", "reversed_without_barrier")([1], [256], 1024, x, y)
    assert (y != x[::-1]).any()


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("half_at_barrier", "__syncthreads reached by 32 of 64 threads, 32 have returned"),
        ("half_in_shuffle", "__shfl_xor_sync reached by 16 of 32 lanes"),
        ("divergent", "threads diverge"),
    ],
)
def test_collectives_that_not_all_reach_are_errors(entry: str, fault: str) -> None:
    with pytest.raises(Launched, match=fault):
        Emulated(PROBES / "threads.cu", entry)([1], [64], 0, np.zeros(64, np.int32))


def test_arguments_must_match_the_parameters() -> None:
    probe = Emulated(PROBES / "threads.cu", "half_in_shuffle")
    with pytest.raises(Launched, match="number of arguments"):
        probe([1], [32], 0)
    with pytest.raises(Launched, match="argument 0 has 4 bytes"):
        probe([1], [32], 0, ctypes.c_int(1))


def test_shuffles_votes_and_atomics(random: Generator) -> None:
    x = random.integers(0, 1 << 20, 64, dtype=np.int32)
    y, total = np.zeros((6, 64), np.int32), np.zeros(1, np.int32)
    Emulated(PROBES / "threads.cu", "collectives")([1], [64], 0, x, y, total, seed=int(x[0]))
    warp, lane = np.divmod(np.arange(64), 32)
    at = x.reshape(2, 32)
    np.testing.assert_array_equal(y[0], at[warp, lane ^ 5])
    np.testing.assert_array_equal(y[1], at[warp, np.where(lane + 3 < 32, lane + 3, lane)])
    np.testing.assert_array_equal(y[2], at[warp, np.where(lane >= 7, lane - 7, lane)])
    np.testing.assert_array_equal(y[3], at[warp, x & 31])
    votes = [sum(int(value & 1) << i for i, value in enumerate(row)) for row in at]
    np.testing.assert_array_equal(y[4].view(np.uint32), np.repeat(np.array(votes, np.uint32), 32))
    np.testing.assert_array_equal(y[5], at[warp, np.where(lane % 8 + 2 < 8, lane + 2, lane)])
    assert total[0] == x.sum()


@pytest.mark.parametrize("scalar", DTYPES)
def test_conversions_round_as_torch_does(scalar: str, random: Generator) -> None:
    spread = random.standard_normal(4000) * 2.0 ** random.integers(-30, 20, 4000)
    special = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        65504,
        65519.9,
        65520,
        2.0**-24,
        2.0**-25,
        1 + 2**-11,
        1 + 3 * 2**-11,
        3e38,
    ]
    x = torch.tensor(np.concatenate([spread, special]), dtype=torch.float32)
    y, pair, back = x.new_empty(len(x), dtype=DTYPES[scalar]), x.new_empty(len(x), 2, dtype=DTYPES[scalar]), x.clone()
    probe = Emulated(PROBES / "numbers.cu", "round_trip", [("SCALAR", scalar)])
    probe([len(x) // 128 + 1], [128], 0, x, y, back, pair, ctypes.c_int(len(x)))
    expected = x.to(DTYPES[scalar])
    assert torch.equal(y.view(torch.int16), expected.view(torch.int16))
    assert torch.equal(back, expected.float())
    assert torch.equal(pair, torch.stack([x, -x], 1).to(DTYPES[scalar]))


@pytest.mark.parametrize("scalar", DTYPES)
def test_pairs_are_rounded_once(scalar: str, random: Generator) -> None:
    a, b, c = (numbers(random, DTYPES[scalar], 512) for _ in range(3))
    y = torch.full((6, 512), torch.nan, dtype=DTYPES[scalar])
    probe = Emulated(PROBES / "numbers.cu", "arithmetic", [("SCALAR", scalar)])
    probe([2], [128], 0, a, b, c, y, ctypes.c_int(256))
    A, B, C = a.double(), b.double(), c.double()
    expected = torch.stack([A * B + C, A * B, A + B, A - B, A.minimum(B), A.maximum(B)]).to(DTYPES[scalar])
    assert torch.equal(y, expected)


def test_e4m3_is_torchs(random: Generator) -> None:
    spread = random.standard_normal(20000) * 2.0 ** random.integers(-14, 10, 20000)
    ties = np.arange(-480, 481, 1 / 8)  # every half-way point of the coarse steps among them
    fine = np.arange(-64, 65) * 2.0**-11
    x = torch.tensor(np.concatenate([spread, ties, fine, [0.0, -0.0, 464, 500, 1e30, -1e30, 1]]), dtype=torch.float32)
    y = torch.zeros(len(x), dtype=torch.uint8)
    probe = Emulated(PROBES / "numbers.cu", "to_e4m3", [("SCALAR", "f16")])
    assert len(x) % 2 == 0
    probe([len(x) // 512 + 1], [256], 0, x, y, ctypes.c_int(len(x) // 2))
    expected = x.clamp(-448, 448).to(torch.float8_e4m3fn)
    assert torch.equal(y, expected.view(torch.uint8))


def test_bit_operations(random: Generator) -> None:
    a, b, c = random.integers(0, 1 << 32, (3, 200), dtype=np.uint32)
    y = np.zeros((4, 200), np.uint32)
    probe = Emulated(PROBES / "numbers.cu", "bits", [("SCALAR", "f16")])
    probe([2], [128], 0, a, b, c, y, ctypes.c_int(200))
    np.testing.assert_array_equal(y[0], (a & b) | c)
    np.testing.assert_array_equal(y[1], (a ^ b) & c)
    left, right = a.view(np.uint8).reshape(-1, 4), b.view(np.uint8).reshape(-1, 4)
    picked = np.stack([left[:, 0], right[:, 0], left[:, 1], right[:, 1]], 1)
    np.testing.assert_array_equal(y[2].view(np.uint8).reshape(-1, 4), picked)
    dot = (left.view(np.int8).astype(np.int64) * right.view(np.int8)).sum(1) + c.view(np.int32)
    np.testing.assert_array_equal(y[3], dot.astype(np.uint32))
