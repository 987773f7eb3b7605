"""The per-layer error plot as SVG: readable on light and dark pages, with a text alternative inside.

Drawn by hand: it is one panel of lines and points, and importing a plotting library takes longer than a run
of the demo's evaluation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from quantrecipe.runner.report.rows import error_of

WIDTH, HEIGHT = 860, 380
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 34, 46
#: Okabe and Ito's colours, told apart with any colour vision; each is legible on white and on #0d1117.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#8f6bd1", "#7f7f7f")
MARKS = ("circle", "square", "diamond", "triangle")
STYLE = """
  .ink { fill: #1f2328; } .line { stroke: #8c959f; } .grid { stroke: #d1d9e0; }
  @media (prefers-color-scheme: dark) {
    .ink { fill: #e6edf3; } .line { stroke: #7d8590; } .grid { stroke: #30363d; }
  }
  text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; }
"""
_BLOCK = re.compile(r"\.(\d+)\.")


def layer_plot(layers: Sequence[Mapping[str, Any]]) -> str:
    """One line a kind of layer (``mlp.down_proj``) over the decoder blocks; errors on a logarithmic scale."""
    series = _series(layers)
    values = [value for points in series.values() for _, value in points if value > 0]
    low, high = _decades(values)
    last = max((block for points in series.values() for block, _ in points), default=0)
    frame = _Frame(low, high, max(last, 1))
    parts = [*_axes(frame, layers), *_curves(frame, series)]
    alternative = escape(_alternative(layers))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="title desc">\n<title id="title">Error of each quantized layer</title>\n'
        f'<desc id="desc">{alternative}</desc>\n<style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _series(layers: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Kind of layer -> (block, error); layers outside the blocks are left out."""
    found: dict[str, list[tuple[int, float]]] = {}
    for layer in layers:
        match = _BLOCK.search(layer["name"])
        if match:
            found.setdefault(layer["name"][match.end() :], []).append((int(match[1]), error_of(layer)))
    return found


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Exponents that hold all values, in steps of a half."""
    if not values:
        return -3.0, 0.0
    low, high = math.floor(2 * math.log10(min(values))) / 2, math.ceil(2 * math.log10(max(values))) / 2
    return low, max(high, low + 0.5)


class _Frame:
    """From blocks and errors to places in the picture."""

    def __init__(self, low: float, high: float, last: int) -> None:
        self.low, self.high, self.last = low, high, last

    def x(self, block: float) -> float:
        return LEFT + 10 + (WIDTH - LEFT - RIGHT - 20) * block / self.last

    def y(self, error: float) -> float:
        exponent = math.log10(error) if error > 0 else self.low
        share = (exponent - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(max(share, 0.0), 1.0)


def _axes(frame: _Frame, layers: Sequence[Mapping[str, Any]]) -> list[str]:
    seen = all(layer["output_error"] is not None for layer in layers)
    label = "relative output error" if seen else "relative weight error"
    parts = [f'<text class="ink" x="{LEFT}" y="20">{label} (log scale) by decoder block</text>']
    for tick in _ticks(frame.low, frame.high):
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="ink" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.3g}</text>')
    base = HEIGHT - BOTTOM
    parts.append(f'<line class="line" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    step = max(1, math.ceil((frame.last + 1) / 12))
    parts += [
        f'<text class="ink" x="{frame.x(block):.1f}" y="{base + 20}" text-anchor="middle">{block}</text>'
        for block in range(0, frame.last + 1, step)
    ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="ink" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">decoder block</text>')
    return parts


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade within the frame; 1 alone where there are many."""
    digits = (1, 2, 5) if high - low <= 2 else (1,)
    every = [digit * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for digit in digits]
    return [tick for tick in every if low - 1e-9 <= math.log10(tick) <= high + 1e-9]


def _curves(frame: _Frame, series: Mapping[str, list[tuple[int, float]]]) -> list[str]:
    parts: list[str] = []
    for number, (kind, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        mark = MARKS[number % len(MARKS)]
        places = [(frame.x(block), frame.y(error)) for block, error in sorted(points)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts += [_mark(mark, x, y, colour) for x, y in places]
        y = TOP + 14 + 20 * number
        parts.append(_mark(mark, WIDTH - RIGHT + 18, y - 4, colour))
        parts.append(f'<text class="ink" x="{WIDTH - RIGHT + 30}" y="{y}">{escape(kind)}</text>')
    return parts


def _mark(kind: str, x: float, y: float, colour: str) -> str:
    shapes = {
        "square": f"M{x - 3.5:.1f} {y - 3.5:.1f}h7v7h-7z",
        "diamond": f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z",
        "triangle": f"M{x:.1f} {y - 4.5:.1f}l5 9h-10z",
    }
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{colour}"/>'
    return f'<path d="{shapes[kind]}" fill="{colour}"/>'


def _alternative(layers: Sequence[Mapping[str, Any]]) -> str:
    """The plot in words."""
    worst = max(layers, key=error_of)
    best = min(layers, key=error_of)
    return (
        f"{len(layers)} layers; the largest error is {error_of(worst):.3g} at {worst['name']}, "
        f"the smallest {error_of(best):.3g} at {best['name']}."
    )
