"""Torch's tiles of 4 bits (tiles.py) back to numbers, row by row: what a product of many rows multiplies by."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from quantrecipe.kernels.cpu.numbers import get, loop, put

Array = Any
LOW, FOUR = np.uint8(15), np.uint8(4)


@loop()
def shuffled(given: Array, out: Array) -> None:  # pragma: no cover - compiled
    """The two halves in turns: the place of a byte turns left by a bit."""
    half = len(given) // 2
    first, second = given[:half], given[half:]
    for i in range(half):
        out[2 * i] = first[i]
        out[2 * i + 1] = second[i]


@loop()
def put_low(part: Array, scale: float, shift: float, out: Array) -> None:  # pragma: no cover - compiled
    """Codes in the low nibbles of ``part``."""
    for k in range(len(part)):
        put(out, k, np.float32(np.uint8(part[k] & LOW)) * scale + shift)


@loop()
def put_high(part: Array, scale: float, shift: float, out: Array) -> None:  # pragma: no cover - compiled
    """Codes in the high nibbles."""
    for k in range(len(part)):
        put(out, k, np.float32(np.uint8(part[k] >> FOUR)) * scale + shift)


@loop()
def scale_and_shift(grid: Array, rest: Array, g: int, n: int) -> Any:  # pragma: no cover - compiled
    """w = code * scale + shift, for codes from 0."""
    scale = get(grid, (g, n, 0))
    shift = get(grid, (g, n, 1)) - np.float32(8) * scale
    return scale, shift + (get(rest, (n, g)) if len(rest) else np.float32(0))


@loop(parallel=True)
def dequantize_tiles(
    packed: Array, grid: Array, rest: Array, first: int, out: Array
) -> None:  # pragma: no cover - compiled
    """out [tiles * T, K] of tiles whose first row is ``first`` of the grid's; rest [N, G] or empty.

    A group of a tile is a matrix of bytes [size, T / 2], size a power of 2, which log2(size) shuffles transpose.
    """
    half, size = packed.shape[2], packed.shape[1] // len(grid)
    for t in numba.prange(len(packed)):
        codes, other = np.empty(size * half, np.uint8), np.empty(size * half, np.uint8)
        flat = packed[t].reshape(-1)
        for g in range(len(grid)):
            shuffled(flat[g * half * size : (g + 1) * half * size], codes)
            left = size // 2
            while left > 1:
                shuffled(codes, other)
                codes, other = other, codes
                left //= 2
            for j in range(half):
                part, n = codes[j * size : (j + 1) * size], 2 * half * t + j
                scale, shift = scale_and_shift(grid, rest, g, first + n)
                put_low(part, scale, shift, out[n, g * size : (g + 1) * size])
                scale, shift = scale_and_shift(grid, rest, g, first + n + half)
                put_high(part, scale, shift, out[n + half, g * size : (g + 1) * size])
