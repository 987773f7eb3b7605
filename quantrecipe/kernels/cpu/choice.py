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
#: Most rows of x that are multiplied by a weight as it is packed, by operator or layout of weight-only codes.
FEW_ROWS = {"planes": 3, "tiles": 20, "bytes": 12, "w8a8": 12, "fp8": 3}
#: The path of those rows, in words.
FEW = {
    "planes": "compiled loop",
    "tiles": "torch._weight_int4pack_mm_for_cpu",
    "bytes": "torch._weight_int8pack_mm",
    "w8a8": "compiled loop",
    "fp8": "compiled loop",
}
MANY = "unpacked in chunks, torch's product"
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
    if rows <= FEW_ROWS[kind]:
        return FEW[kind]
    return "torch._int_mm" if kind == "w8a8" else MANY


def pick_weight_only(m: int, weight: Weight) -> Pick:
    """For linear_weight_only with x [m, K]."""
    kind, why = pick_layout(weight)
    bound = "few rows, bound by the weight's bytes" if m <= FEW_ROWS[kind] else "more rows, bound by arithmetic"
    return Pick(path_of(kind, m), f"{bound}; {why}")


def explain_weight_only(weight: Weight) -> list[str]:
    """A line for each range of rows: what runs, and why."""
    most = FEW_ROWS[pick_layout(weight)[0]]
    few, many = pick_weight_only(1, weight), pick_weight_only(most + 1, weight)
    return [
        f"M = 1 to {most}: {few.path}, {few.reason}",
        f"M = {most + 1} and more: {many.path}, {many.reason}",
    ]
