"""The CPU's paths of each product, shape by shape: microseconds of CPU time, what is chosen, and that against bf16.

Medians of calls in turns with bf16's; CPU time of all threads together, so that a busy machine disturbs little;
weights go around more than 64 MB.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch

from quantrecipe.kernels import ops
from quantrecipe.kernels.cpu import byte_loops, eight_bit
from quantrecipe.kernels.cpu.choice import path_of
from quantrecipe.kernels.cpu.held import Held, held, kind_of
from quantrecipe.kernels.cpu.numbers import raw, use_threads
from quantrecipe.kernels.cpu.weight_only import in_chunks

OPS = torch.ops.quantrecipe
Tensor = torch.Tensor
Call = Callable[[int], object]
SPREAD = 64 * 2**20
BRAIN = torch.bfloat16
HEAD = """| N x K | M | weight | bf16 | loop | torch's kernel | unpacked | chosen | x bf16 |
|---|--:|---|--:|--:|--:|--:|---|--:|
"""
assert ops.SCHEMAS


@dataclass
class Product:
    """One row of the table. whole: the operator itself."""

    name: str
    chosen: str
    whole: Call
    loop: Call | None = None
    kernel: Call | None = None
    unpacked: Call | None = None
    took: dict[str, float] = field(default_factory=dict)


def in_turn(tensor: Tensor, product: Callable[[Tensor], object]) -> Call:
    """Call i with the next copy of a weight."""
    copies = [tensor.clone() for _ in range(max(2, math.ceil(SPREAD / tensor.nbytes)))]
    return lambda i: product(copies[i % len(copies)])


def products(m: int, n: int, k: int) -> Iterator[Product]:
    """Of x [M, K] with weights [N, K]."""
    x = torch.randn(m, k).to(BRAIN)
    for bits, group in ((4, 64), (3, 64), (8, 0), (8, 64)):
        yield weight_only(x, n, bits, group)
    yield w8a8(x, n)
    yield fp8(x, n)


def weight_only(x: Tensor, n: int, bits: int, group: int) -> Product:
    m, k = x.shape
    codes = torch.randint(0, 2**bits, (n, k), dtype=torch.uint8)
    scales = torch.rand(n, k // group if group else 1).to(BRAIN)
    picked = OPS.repack(codes, scales, None, bits, group, BRAIN)
    plain = OPS.repack(codes, scales, None, bits, group, torch.float32)

    def path(given: tuple[Tensor, ...], run: Callable[[Held], object]) -> Call:
        return in_turn(given[0], lambda w: run(held(w, *given[1:], bits, group, (n, k))))

    whole = in_turn(picked[0], lambda w: OPS.linear_weight_only(x, w, picked[1], picked[2], None, bits, group, n))
    kind = kind_of(picked[0])
    return Product(
        f"w{bits}a16" + (f"-g{group}" if group else ""),
        path_of(kind, m),
        whole,
        path(plain, lambda w: w.product(x, None)) if m <= 8 else None,
        path(picked, lambda w: w.product(x, None)) if kind != "planes" else None,
        path(picked, lambda w: in_chunks(x, w, None, n)),
    )


def w8a8(x: Tensor, n: int) -> Product:
    weight, rows = torch.randint(-127, 128, (n, x.shape[1]), dtype=torch.int8), torch.rand(n)
    q = OPS.quantize_activation(x, "int8")[0]

    def whole(w: Tensor) -> object:
        q, scales = OPS.quantize_activation(x, "int8")
        return OPS.linear_w8a8(q, scales.view(-1), w, rows, None, None, None, BRAIN)

    def loop(w: Tensor) -> None:
        use_threads()
        byte_loops.integer_product(raw(q), raw(w), raw(q.new_empty(len(q), n, dtype=torch.int32)))

    return Product(
        "w8a8",
        path_of("w8a8", len(x)),
        in_turn(weight, whole),
        in_turn(weight, loop) if len(x) <= 16 else None,
        in_turn(weight, lambda w: torch._int_mm(q, w.t())),
    )


def fp8(x: Tensor, n: int) -> Product:
    weight, rows = torch.randn(n, x.shape[1]).to(torch.float8_e4m3fn), torch.rand(n)
    return Product(
        "fp8 weights",
        path_of("fp8", len(x)),
        in_turn(weight, lambda w: OPS.linear_fp8(x, None, w, rows, None, BRAIN)),
        in_turn(weight, lambda w: eight_bit.float8_loop(x, w, rows)) if len(x) <= 8 else None,
        None,
        in_turn(weight, lambda w: eight_bit.float8_chunks(x, w)),
    )


def measured(product: Product, base: Call, seconds: float) -> Product:
    """Each way in turns with bf16."""
    calls = {name: getattr(product, name) for name in ("whole", "loop", "kernel", "unpacked")}
    calls = {"bf16": base} | {name: call for name, call in calls.items() if call is not None}
    for call in calls.values():
        call(0), call(1)
    found: dict[str, list[float]] = {name: [] for name in calls}
    ends = time.process_time() + seconds * len(calls)
    while len(found["bf16"]) < 7 or time.process_time() < ends:
        for name, call in calls.items():
            found[name].append(timed(call, len(found[name])))
    product.took = {name: statistics.median(values) for name, values in found.items()}
    return product


def timed(call: Call, i: int) -> float:
    """Microseconds of CPU time."""
    began = time.process_time()
    call(i)
    return (time.process_time() - began) * 1e6


def table(rows: list[int], shapes: list[tuple[int, int]], seconds: float, only: str = "") -> Iterator[str]:
    """Markdown, a line at a time."""
    threads = torch.get_num_threads()
    yield f"{threads} thread{'s' * (threads > 1)}, torch {torch.__version__}, microseconds of CPU time a call:\n\n"
    yield HEAD
    for n, k in shapes:
        for m in rows:
            base = in_turn(
                torch.randn(n, k).to(BRAIN), partial(torch.nn.functional.linear, torch.randn(m, k).to(BRAIN))
            )
            for product in products(m, n, k):
                if product.name.startswith(only):
                    yield line(measured(product, base, seconds), m, n, k)


def line(product: Product, m: int, n: int, k: int) -> str:
    """A row of the table."""
    took = product.took
    cells = [f"{took[name]:.0f}" if name in took else "" for name in ("bf16", "loop", "kernel", "unpacked")]
    ratio = took["bf16"] / took["whole"]
    return f"| {n} x {k} | {m} | {product.name} | {' | '.join(cells)} | {product.chosen} | {ratio:.2f} |\n"
