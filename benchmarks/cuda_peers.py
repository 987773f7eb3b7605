"""Other libraries' products of the same shape, where installed. Each gives calls, or raises what it lacks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from cuda_cases import DEVICE, GROUP, Case
from cuda_products import inputs
from cuda_timing import Call, copies_of

INNER_TILES = 8  # of tinygemm's layout


def tinygemm(case: Case) -> list[Call]:
    """torchao's int4 kernel, which torch carries: bf16, groups of 128."""
    x, (n, k) = inputs(case), case.shape
    codes = torch.randint(0, 256, (n, k // 2), device=DEVICE, dtype=torch.uint8)
    packed = torch.ops.aten._convert_weight_to_int4pack(codes, INNER_TILES)
    scales = torch.rand(k // GROUP, n, 2, device=DEVICE).bfloat16()

    def call(weight: torch.Tensor) -> Call:
        return lambda: torch.ops.aten._weight_int4pack_mm(x, weight, GROUP, scales)

    return [call(packed.clone()) for _ in range(copies_of(packed.nbytes))]


def int_mm(case: Case) -> list[Call]:
    """torch._int_mm with its right side column-major, scales not applied; it takes more than 16 rows."""
    n, k = case.shape
    q = torch.randint(-127, 128, (max(case.m, 17), k), device=DEVICE, dtype=torch.int8)
    weight = torch.randint(-127, 128, (n, k), device=DEVICE, dtype=torch.int8)

    def call(copy: torch.Tensor) -> Call:
        return lambda: torch._int_mm(q, copy.t())

    return [call(weight.clone()) for _ in range(copies_of(weight.nbytes))]


def bitsandbytes_nf4(case: Case) -> list[Call]:
    """bitsandbytes' 4-bit product, blocks of 64."""
    import bitsandbytes as bnb

    x, (n, k) = inputs(case), case.shape
    packed, state = bnb.functional.quantize_4bit(torch.randn(n, k, device=DEVICE).bfloat16(), quant_type="nf4")

    def call(weight: torch.Tensor) -> Call:
        return lambda: bnb.matmul_4bit(x, weight.t(), quant_state=state)

    return [call(packed.clone()) for _ in range(copies_of(packed.nbytes))]


def bitsandbytes_int8(case: Case) -> list[Call]:
    """bitsandbytes' LLM.int8 layer, threshold 6."""
    import bitsandbytes as bnb

    x, (n, k) = inputs(case).half(), case.shape

    def call() -> Call:
        layer = bnb.nn.Linear8bitLt(k, n, bias=False, has_fp16_weights=False, threshold=6.0).to(DEVICE)
        return lambda: layer(x)

    return [call() for _ in range(copies_of(n * k))]


def triton(case: Case) -> list[Call]:
    """What Inductor makes of dequantize and multiply, with its templates in Triton."""
    x, (n, k) = inputs(case), case.shape
    codes = torch.randint(0, 16, (n, k), device=DEVICE, dtype=torch.uint8)
    packed = codes[:, ::2] | codes[:, 1::2] << 4
    scales = torch.rand(n, k // GROUP, 1, device=DEVICE).bfloat16()

    def product(x: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
        values = torch.stack((packed & 15, packed >> 4), 2).view(n, k // GROUP, GROUP)
        return x @ ((values.bfloat16() - 8) * scales).view(n, k).t()

    compiled = torch.compile(product, mode="max-autotune-no-cudagraphs", dynamic=False)

    def call(weight: torch.Tensor) -> Call:
        return lambda: compiled(x, weight)

    return [call(packed.clone()) for _ in range(copies_of(packed.nbytes))]


#: By our kernel: name of the peer, and its calls.
PEERS: dict[str, dict[str, Callable[[Case], list[Call]]]] = {
    "gemv_w4a16": {"tinygemm": tinygemm, "bitsandbytes nf4": bitsandbytes_nf4, "Triton (Inductor)": triton},
    "gemm_w4a16": {"tinygemm": tinygemm, "bitsandbytes nf4": bitsandbytes_nf4, "Triton (Inductor)": triton},
    "gemm_w8a8": {"torch._int_mm": int_mm},
    "llm_int8": {"bitsandbytes int8": bitsandbytes_int8},
}
