"""Ours and the peers', one call a buffer: what benchmarks/kernels_cuda.py times. Needs a GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from cuda_cases import DEVICE, GROUP, Case
from cuda_timing import Call, copies_of

from quantrecipe.kernels.ops import SCHEMAS

OPS = torch.ops.quantrecipe
assert SCHEMAS  # imported for its registration
Tensor = torch.Tensor
WRONG = 0.02  # relative error that no correct product in 16 bits comes near


def inputs(case: Case) -> Tensor:
    """x bf16 [M, K], without outliers."""
    return torch.randn(case.m, case.shape[1], device=DEVICE, dtype=torch.bfloat16).clamp(-4, 4)


def bf16(case: Case) -> list[Call]:
    """cuBLAS by torch."""
    x = inputs(case)
    n, k = case.shape
    return [_linear(x, torch.randn(n, k, device=DEVICE).bfloat16()) for _ in range(copies_of(2 * n * k))]


def _linear(x: Tensor, weight: Tensor) -> Call:
    return lambda: torch.nn.functional.linear(x, weight)


def ours(case: Case) -> tuple[list[Call], int]:
    """Calls, and the bytes that one of them must move. Raises where a product is wrong."""
    build = _weight_only if case.activation_bits == 16 and case.kernel != "llm_int8" else BUILDERS[case.kernel]
    return build(case)


def _weight_only(case: Case) -> tuple[list[Call], int]:
    x, (n, k) = inputs(case), case.shape
    codes = torch.randint(0, 2**case.bits, (n, k), device=DEVICE, dtype=torch.uint8)
    scales = (torch.rand(n, k // GROUP, device=DEVICE) / 100 + 0.01).bfloat16()
    packed, by_group, none = OPS.repack(codes, scales, None, case.bits, GROUP, torch.bfloat16)
    weight = (codes.float() - 2 ** (case.bits - 1)) * scales.float().repeat_interleave(GROUP, 1)
    size = packed.nbytes + scales.nbytes

    def call(units: Tensor) -> Call:
        return lambda: OPS.linear_weight_only(x, units, by_group, none, None, case.bits, GROUP, n)

    calls = [call(packed.clone()) for _ in range(copies_of(size))]
    check(calls[0](), x.float() @ weight.t())
    return calls, size + x.nbytes + 2 * case.m * n


def _eight_bit(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n, k = case.shape
    q, xs = OPS.quantize_activation(inputs(case))
    weight = torch.randint(-127, 128, (n, k), device=DEVICE, dtype=torch.int8)
    return q, xs.flatten(), weight, torch.rand(n, device=DEVICE) / 1000


def _w8a8(case: Case) -> tuple[list[Call], int]:
    q, xs, weight, ws = _eight_bit(case)

    def call(copy: Tensor) -> Call:
        return lambda: OPS.linear_w8a8(q, xs, copy, ws, None, None, None, torch.bfloat16)

    calls = [call(weight.clone()) for _ in range(copies_of(weight.nbytes))]
    check(calls[0](), (q.float() * xs.unsqueeze(1)) @ (weight.float() * ws.unsqueeze(1)).t())
    return calls, weight.nbytes + q.nbytes + 2 * case.m * len(weight)


def _w4a8(case: Case) -> tuple[list[Call], int]:
    q, xs, _, ws = _eight_bit(case)
    n, k = case.shape
    codes = torch.randint(0, 16, (n, k), device=DEVICE, dtype=torch.uint8)
    groups = torch.randint(1, 17, (k // GROUP, n), device=DEVICE, dtype=torch.int8).t()
    packed = OPS.repack_w4a8(codes)
    weight = (codes.float() - 8) * groups.float().repeat_interleave(GROUP, 1) * ws.unsqueeze(1)

    def call(units: Tensor) -> Call:
        return lambda: OPS.linear_w4a8(q, xs, units, ws, groups, None, GROUP, torch.bfloat16)

    calls = [call(packed.clone()) for _ in range(copies_of(packed.nbytes))]
    check(calls[0](), (q.float() * xs.unsqueeze(1)) @ weight.t())
    return calls, packed.nbytes + groups.nbytes + q.nbytes + 2 * case.m * n


def _llm_int8(case: Case) -> tuple[list[Call], int]:
    x, (_, _, weight, ws) = inputs(case), _eight_bit(case)
    x[:, :: x.shape[1] // 8] *= 20  # eight columns of outliers

    def call(copy: Tensor) -> Call:
        return lambda: OPS.linear_llm_int8(x, copy, ws, 6.0, None)

    calls = [call(weight.clone()) for _ in range(copies_of(weight.nbytes))]
    check(calls[0](), x.float() @ (weight.float() * ws.unsqueeze(1)).t())
    return calls, weight.nbytes + x.nbytes + 2 * case.m * len(weight)


BUILDERS: dict[str, Callable[[Case], tuple[list[Call], int]]] = {
    "gemm_w8a8": _w8a8,
    "gemm_w4a8": _w4a8,
    "llm_int8": _llm_int8,
}


def check(found: Tensor, wanted: Tensor) -> None:
    """A fast wrong product is no product."""
    error = float((found.float() - wanted).norm() / wanted.norm())
    if not error < WRONG:
        raise RuntimeError(f"relative error {error:.3g} of a product that was to be timed")
