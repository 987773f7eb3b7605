"""Plain tables that keep to a width."""

from __future__ import annotations

from collections.abc import Sequence

WIDTH = 100
_MARGIN = 2


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left_last: bool = False) -> str:
    """Rows under a head: the first column to the left, the rest to the right, the last one to the left if asked.

    What does not fit is cut: the last column first, then the first.
    """
    cells = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    over = sum(widths) + 2 * len(widths) - WIDTH + _MARGIN - 2
    for index in (len(widths) - 1, 0) if left_last else (0,):
        cut = min(max(over, 0), max(widths[index] - 24, 0))
        widths[index], over = widths[index] - cut, over - cut
    lines = []
    for row in cells:
        parts = []
        for index, (text, width) in enumerate(zip(row, widths, strict=True)):
            short = text if len(text) <= width else text[: width - 1] + "…"
            left = index == 0 or (left_last and index == len(widths) - 1)
            parts.append(short.ljust(width) if left else short.rjust(width))
        lines.append((" " * _MARGIN + "  ".join(parts)).rstrip())
    return "\n".join(lines)
