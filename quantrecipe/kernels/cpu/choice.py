"""Which path an operator takes on CPU, by the rows M of its input: measured, docs/kernels.md has the table.

A compiled loop reads packed weights once and wins where memory is what limits: few rows. Above, the weight is
unpacked in chunks that stay in cache and multiplied by torch's own product.
"""

from __future__ import annotations

#: Most rows of x that the compiled loop takes, by operator.
LOOP_ROWS = {"weight_only": 4, "w8a8": 12, "fp8": 3}
#: Weights unpacked at a time: 1 MB in 16 bits, which stays in a core's second-level cache.
CHUNK = 1 << 19


def chunk_rows(columns: int) -> int:
    """Rows of a chunk, a multiple of 16."""
    return max(CHUNK // columns // 16, 1) * 16


def path_of(operator: str, rows: int) -> str:
    """In words, for reports."""
    if rows <= LOOP_ROWS[operator]:
        return "compiled loop"
    return "torch._int_mm" if operator == "w8a8" else "unpacked in chunks, torch's product"
