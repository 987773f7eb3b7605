"""quantize_pack against the copy bandwidth, gptq_block against the eager loop, GPTQ over a block of Llama-3 8B."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from cuda_cases import DEVICE, GROUP
from cuda_timing import copies_of, copy_bandwidth, microseconds, synchronize

from quantrecipe.kernels.ops import SCHEMAS
from quantrecipe.plugins.native.factor import Setting
from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.methods.gptq import Sweep, eager_columns, gptq, kernel_columns
from quantrecipe.plugins.native.qparams import Storage, make_grid
from quantrecipe.schemes import QuantizationArgs

OPS = torch.ops.quantrecipe
assert SCHEMAS  # imported for its registration
W4 = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=GROUP)
BF16 = Storage(torch.bfloat16, torch.bfloat16)
#: By input of a block of Llama-3 8B: its columns K, and the rows N of the layers that share its Hessian.
BLOCK = ((4096, (4096, 1024, 1024)), (4096, (4096,)), (4096, (14336, 14336)), (14336, (4096,)))
BLOCKS, TOKENS = 32, 128 * 2048
BATCH = 8192  # tokens that are added to a Hessian at once


@dataclass(frozen=True, slots=True)
class Aim:
    """name: what is measured. least: what is aimed at (most: where less is better)."""

    name: str
    unit: str
    least: float | None = None
    most: float | None = None

    def said(self, found: float) -> str:
        """A line with the verdict."""
        reached = found >= self.least if self.least is not None else self.most is not None and found <= self.most
        return f"- {self.name}: {found:.3g} {self.unit} ({self.wanted}): {'reached' if reached else '**missed**'}"

    @property
    def wanted(self) -> str:
        """In words."""
        return f">= {self.least:g}" if self.least is not None else f"< {self.most:g}"


PACK = Aim("quantize_pack, int4 groups of 128, 14336 x 4096", "of copy bandwidth", least=0.8)
LOOP = Aim("gptq_block, 128 columns of 4096 rows", "x the eager loop", least=20)
PASS = Aim("GPTQ over a Llama-3 8B, from one block with 128 x 2048 tokens", "s", most=300)
AIMS = (PACK, LOOP, PASS)


def lines() -> list[str]:
    """Measured on the current GPU."""
    return [PACK.said(pack()), LOOP.said(loop()), PASS.said(whole_pass())]


def pack() -> float:
    """Bytes read and written a second, as a share of a copy's."""
    weight = torch.randn(14336, 4096, device=DEVICE).bfloat16()
    copies = [weight.clone() for _ in range(copies_of(weight.nbytes))]
    size = weight.nbytes + sum(part.nbytes for part in OPS.quantize_pack(weight, 4, GROUP, True))
    calls = [lambda one=one: OPS.quantize_pack(one, 4, GROUP, True)[0] for one in copies]  # type: ignore[misc]
    return size / microseconds(calls) * 1e6 / copy_bandwidth()


def hessian(columns: int, tokens: int) -> Hessian:
    """Of normal inputs, mixed so that columns depend on each other."""
    found, mix = Hessian(columns, DEVICE), torch.randn(columns, columns, device=DEVICE).bfloat16() / columns**0.5
    for start in range(0, tokens, BATCH):
        count = min(BATCH, tokens - start)
        found.add(torch.randn(count, columns, device=DEVICE).bfloat16() @ mix)
    return found


def loop() -> float:
    """Times that 128 columns are solved while the eager loop solves them once."""
    factor = hessian(GROUP, BATCH).factor(Setting(0.01, sorts=False), "the block", print)
    weight = torch.randn(4096, GROUP, device=DEVICE)
    group = torch.zeros(GROUP, dtype=torch.int64, device=DEVICE)
    grid = make_grid(weight, W4, BF16)
    sweep = Sweep.over(weight, factor.U, W4, group)
    took = {}
    for solve in (kernel_columns, eager_columns):
        solve(sweep, 0, GROUP, grid)
        synchronize()
        began = time.perf_counter()
        for _ in range(10):
            solve(sweep, 0, GROUP, grid)
        synchronize()
        took[solve] = time.perf_counter() - began
    return took[eager_columns] / took[kernel_columns]


def whole_pass() -> float:
    """Seconds for 32 blocks: Hessians, factors, all layers of a block; the model's own forward is not in it."""
    _block(BATCH)  # compiles
    synchronize()
    began = time.perf_counter()
    _block(TOKENS)
    synchronize()
    return BLOCKS * (time.perf_counter() - began)


def _block(tokens: int) -> None:
    for columns, layers in BLOCK:
        held = hessian(columns, tokens)
        for rows in layers:
            factor = held.factor(Setting(0.01, sorts=False), "a layer", print)
            gptq(torch.randn(rows, columns, device=DEVICE), factor, W4, BF16)
