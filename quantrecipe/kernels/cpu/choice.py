"""Which layout a weight gets on CPU and which path a product takes: measured, docs/kernels.md has the table.

Few rows are limited by the weight's bytes, which a loop or torch's own kernel reads once, packed. For more, the
weight is unpacked in chunks that stay in cache and multiplied by torch's own product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from quantrecipe.kernels.cpu import tiles
from quantrecipe.kernels.ops.layouts import Weight

#: planes: our own (layout.py); tiles: torch's int4 (tiles.py); bytes: int8 [N, K], torch's int8.
Kind = Literal["planes", "tiles", "bytes"]
MOST = 1 << 62
LOOP, MANY = "compiled loop", "unpacked in chunks, torch's product"
INT4, INT8 = "torch._weight_int4pack_mm_for_cpu", "torch._weight_int8pack_mm"
#: Up to how many rows of x which path is taken, by operator or layout of weight-only codes; above, the last.
RANGES: dict[str, tuple[tuple[int, str], ...]] = {
    "planes": ((5, LOOP), (MOST, MANY)),
    "tiles": ((32, INT4), (MOST, MANY)),
    "bytes": ((1, LOOP), (10, INT8), (MOST, MANY)),
    "w8a8": ((12, LOOP), (MOST, "torch._int_mm")),
    "fp8": ((7, LOOP), (MOST, MANY)),
}
#: Most rows that are multiplied by a weight as it is packed.
FEW_ROWS = {kind: ranges[-2][0] for kind, ranges in RANGES.items()}
#: Weights unpacked at a time for a thread: 4 MB in 16 bits; less costs more calls, more leaves the cache.
CHUNK = 1 << 21


@dataclass(frozen=True, slots=True)
class Pick:
    """What runs, and why."""

    path: str
    reason: str


def chunk_rows(columns: int) -> int:
    """Rows of a chunk, a multiple of 64: whole tiles."""
    return max(CHUNK * torch.get_num_threads() // columns // 64, 1) * 64


def pick_layout(weight: Weight) -> tuple[Kind, str]:
    """The layout, and why."""
    if weight.num_bits == 4:
        fault = _no_tiles(weight)
    elif weight.num_bits == 8:
        fault = _no_bytes(weight)
    else:
        return "planes", f"torch has no kernel for {weight.num_bits} bits"
    name = "int4" if weight.num_bits == 4 else "int8"
    if fault:
        return "planes", f"not torch's {name} kernel: {fault}"
    return ("tiles" if name == "int4" else "bytes"), f"bfloat16 and a shape that torch's {name} kernel takes"


def _no_tiles(weight: Weight) -> str:
    if not tiles.WIDTH:
        return "it packs otherwise than known here"
    if weight.columns // weight.groups not in tiles.GROUPS:
        return f"groups of {weight.columns // weight.groups}, not 32, 64, 128 or 256"
    if weight.rows % tiles.WIDTH:
        return f"{weight.rows} outputs, no multiple of {tiles.WIDTH}"
    return _no_bfloat16(weight)


def _no_bytes(weight: Weight) -> str:
    if weight.groups > 1 or not weight.symmetric:
        return "not one scale a row without zero points"
    if weight.rows % 16 or weight.columns % 16:  # beyond whole sixteens it reads past a row's end
        return f"{weight.rows} x {weight.columns} are no multiples of 16"
    return _no_bfloat16(weight)


def _no_bfloat16(weight: Weight) -> str:
    """Its other types go by a loop that takes ten to thirty times as long."""
    other = next((one for one in (weight.dtype, weight.scale_dtype) if one != torch.bfloat16), None)
    return "" if other is None else f"fast in bfloat16 only, not {str(other).removeprefix('torch.')}"


def path_of(kind: str, rows: int) -> str:
    """In words, by operator (w8a8, fp8) or layout."""
    return next(path for most, path in RANGES[kind] if rows <= most)


def pick_weight_only(m: int, weight: Weight) -> Pick:
    """For linear_weight_only with x [m, K]."""
    kind, why = pick_layout(weight)
    told = kind == "planes" or m <= FEW_ROWS[kind]  # why torch's kernel, or why not
    return Pick(path_of(kind, m), f"{_bound(kind, m)}; {why}" if told else _bound(kind, m))


def pick_eight_bit(operator: str, m: int) -> Pick:
    """For linear_w8a8 (and linear_llm_int8, whose product of codes it is) and linear_fp8, x [m, K]."""
    return Pick(path_of(operator, m), _bound(operator, m))


def _bound(kind: str, m: int) -> str:
    return "few rows, bound by the weight's bytes" if m <= FEW_ROWS[kind] else "more rows, bound by arithmetic"


def explain_weight_only(weight: Weight) -> list[str]:
    """A line for each range of rows: what runs, and why."""
    lines, first = [], 1
    for most, _ in RANGES[pick_layout(weight)[0]]:
        pick = pick_weight_only(first, weight)
        upto = f"{first} and more" if most == MOST else f"{first} to {most}" if most > first else f"{first}"
        lines.append(f"M = {upto}: {pick.path}, {pick.reason}")
        first = most + 1
    return lines
