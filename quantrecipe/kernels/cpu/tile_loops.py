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
def put_nibbles(part: Array, by: int, scale: float, shift: float, out: Array) -> None:  # pragma: no cover - compiled
    """Codes in the low (``by`` 0) or high (4) nibbles of ``part``."""
    for k in range(len(part)):
        put(out, k, np.float32(np.uint8(part[k] >> by) & LOW) * scale + shift)


@loop()
def scale_and_shift(grid: Array, rest: Array, g: int, n: int) -> Any:  # pragma: no cover - compiled
    """w = code * scale + shift, for codes from 0."""
    scale = get(grid, (g, n, 0))
    shift = get(grid, (g, n, 1)) - np.float32(8) * scale
    return scale, shift + (get(rest, (n, g)) if len(rest) else np.float32(0))


@loop()
def transposed(given: Array, size: int, one: Array, two: Array, out: Array) -> None:  # pragma: no cover - compiled
    """Bytes [size, T / 2] as [T / 2, size]: size is a power of 2, and log2(size) shuffles transpose."""
    shuffled(given, one)
    left = size // 4
    while left > 1:
        shuffled(one, two)
        one, two = two, one
        left //= 2
    shuffled(one, out)


@loop(parallel=True)
def dequantize_tiles(
    packed: Array, grid: Array, rest: Array, first: int, out: Array
) -> None:  # pragma: no cover - compiled
    """out [tiles * T, K] of tiles whose first row is ``first`` of the grid's; rest [N, G] or empty.

    All groups of a tile are transposed before any number is written: rows of out lie a multiple of 4096 bytes apart,
    so that pieces of one row after the other would push each other out of the cache.
    """
    half, size = packed.shape[2], packed.shape[1] // len(grid)
    for t in numba.prange(len(packed)):
        one, two = np.empty(size * half, np.uint8), np.empty(size * half, np.uint8)
        flat, codes = packed[t].reshape(-1), np.empty((len(grid), size * half), np.uint8)
        for g in range(len(grid)):
            transposed(flat[g * half * size : (g + 1) * half * size], size, one, two, codes[g])
        for j in range(half):
            for by, n in ((np.uint8(0), 2 * half * t + j), (FOUR, 2 * half * t + j + half)):
                for g in range(len(grid)):
                    part = codes[g, j * size : (j + 1) * size]
                    scale, shift = scale_and_shift(grid, rest, g, first + n)
                    put_nibbles(part, by, scale, shift, out[n, g * size : (g + 1) * size])
