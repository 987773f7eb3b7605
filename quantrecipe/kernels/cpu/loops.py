"""Compiled loops over packed weights (layout.py): a few rows of x times W, and dequantizing.

Arrays as numbers.py has them. zeros [N, G] may be empty: then 2^(b-1) is the zero of all.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from quantrecipe.kernels.cpu.layout import BLOCK
from quantrecipe.kernels.cpu.numbers import get, loop, put

Array = Any
HALF = BLOCK // 2
LOW, FOUR = np.uint8(15), np.uint8(4)


@loop()
def unpack_row(row: Array, num_bits: int, codes: Array) -> None:  # pragma: no cover - compiled
    """codes uint8 [Kp] of one row's bytes. Plain loops: an assignment of whole arrays takes twenty times as long."""
    columns, start = len(codes), 0
    if num_bits == 8:
        for k in range(columns):
            codes[k] = row[k]
        return
    if num_bits >= 4:
        plane_of_4(row, np.uint8(1 << (num_bits - 4)), codes)
        start = columns // 2
    if num_bits in (2, 3, 6):
        plane_of_2(row[start : start + columns // 4], np.uint8(1 + num_bits % 2), np.uint8(start > 0), codes)
        start += columns // 4
    if num_bits % 2:
        plane_of_1(row[start : start + columns // 8], codes)


@loop()
def plane_of_4(row: Array, factor: int, codes: Array) -> None:  # pragma: no cover - compiled
    """codes = value times factor. Products and shifts by constants stay in bytes, other shifts do not."""
    for b in range(len(codes) // BLOCK):
        part, out = row[b * HALF : (b + 1) * HALF], codes[b * BLOCK : (b + 1) * BLOCK]
        for k in range(HALF):
            out[k] = np.uint8(np.uint8(part[k] & LOW) * factor)
            out[k + HALF] = np.uint8(np.uint8(part[k] >> FOUR) * factor)


@loop()
def plane_of_2(plane: Array, factor: int, keep: int, codes: Array) -> None:  # pragma: no cover - compiled
    """codes = codes times keep + value times factor."""
    size = len(plane)
    a, b, c, d = codes[:size], codes[size : 2 * size], codes[2 * size : 3 * size], codes[3 * size :]
    mask, two, six = np.uint8(3), np.uint8(2), np.uint8(6)
    for k in range(size):
        value = plane[k]
        a[k] = np.uint8(np.uint8(a[k] * keep) + np.uint8(np.uint8(value & mask) * factor))
        b[k] = np.uint8(np.uint8(b[k] * keep) + np.uint8(np.uint8((value >> two) & mask) * factor))
        c[k] = np.uint8(np.uint8(c[k] * keep) + np.uint8(np.uint8((value >> FOUR) & mask) * factor))
        d[k] = np.uint8(np.uint8(d[k] * keep) + np.uint8(np.uint8(value >> six) * factor))


@loop()
def plane_of_1(plane: Array, codes: Array) -> None:  # pragma: no cover - compiled
    """codes = codes + bit."""
    size, one = len(plane), np.uint8(1)
    for i in range(8):
        out, place = codes[i * size : (i + 1) * size], np.uint8(1 << i)
        for k in range(size):
            out[k] = np.uint8(out[k] + (one if np.uint8(plane[k] & place) else np.uint8(0)))


@loop()
def prepare(x: Array, group_size: int, numbers: Array, sums: Array) -> None:  # pragma: no cover - compiled
    """x [M, K] as fp32 numbers [M, Kp], zero beyond K, and the sum of each group [M, G]."""
    columns = x.shape[1]
    for m in range(x.shape[0]):
        numbers[m, columns:] = np.float32(0)
        for g in range(sums.shape[1]):
            total = np.float32(0)
            for k in range(g * group_size, (g + 1) * group_size):
                value = get(x, (m, k))
                numbers[m, k] = value
                total += value
            sums[m, g] = total


@loop()
def offset(scales: Array, zeros: Array, default: float, sums: Array) -> Any:  # pragma: no cover - compiled
    """What zero points take off one output: the sum over groups of scale * zero * sum of x. All [G]."""
    total = np.float32(0)
    if len(zeros):
        for g in range(len(sums)):
            total += get(scales, g) * get(zeros, g) * sums[g]
        return total
    for g in range(len(sums)):
        total += get(scales, g) * sums[g]
    return total * np.float32(default)


@loop()
def nibbles_dot(numbers: Array, row: Array, scales: Array) -> Any:  # pragma: no cover - compiled
    """Sum of number * nibble * scale, nibbles multiplied as they are read; groups are whole blocks."""
    total, each = np.float32(0), len(row) // HALF // len(scales)
    for g in range(len(scales)):
        some = np.float32(0)
        for b in range(g * each, (g + 1) * each):
            part, first = row[b * HALF : (b + 1) * HALF], numbers[b * BLOCK : b * BLOCK + HALF]
            second, block = numbers[b * BLOCK + HALF : (b + 1) * BLOCK], np.float32(0)
            for k in range(HALF):
                block += first[k] * np.float32(np.uint8(part[k] & LOW))
                block += second[k] * np.float32(np.uint8(part[k] >> FOUR))
            some += block
        total += some * get(scales, g)
    return total


@loop()
def codes_dot(numbers: Array, codes: Array, scales: Array, group_size: int) -> Any:  # pragma: no cover - compiled
    """Sum of number * code * scale, in blocks of a length that the compiler knows, then the rest of each group."""
    total, whole = np.float32(0), group_size // BLOCK * BLOCK
    for g in range(len(scales)):
        some, begin = np.float32(0), g * group_size
        for b in range(begin, begin + whole, BLOCK):
            first, second, block = numbers[b : b + BLOCK], codes[b : b + BLOCK], np.float32(0)
            for k in range(BLOCK):
                block += first[k] * np.float32(second[k])
            some += block
        if whole < group_size:
            for k in range(begin + whole, begin + group_size):
                some += numbers[k] * np.float32(codes[k])
        total += some * get(scales, g)
    return total


@loop(parallel=True)
def times_packed(
    x: Array, packed: Array, scales: Array, zeros: Array, bias: Array, num_bits: int, out: Array
) -> None:  # pragma: no cover - compiled
    """out [M, N] of x [M, K], packed codes [N, …] and bias fp32 [N] or empty."""
    groups, columns = scales.shape[1], packed.shape[1] * 8 // num_bits
    size, zero = x.shape[1] // groups, 2.0 ** (num_bits - 1)
    numbers, sums = np.empty((len(x), columns), np.float32), np.empty((len(x), groups), np.float32)
    prepare(x, size, numbers, sums)
    fused = num_bits == 4 and size % BLOCK == 0
    for n in numba.prange(len(packed)):
        codes = packed[n]
        if num_bits != 8 and not fused:
            codes = np.empty(columns, np.uint8)
            unpack_row(packed[n], num_bits, codes)
        for m in range(len(x)):
            if fused:
                total = nibbles_dot(numbers[m], codes, scales[n])
            else:
                total = codes_dot(numbers[m], codes, scales[n], size)
            total -= offset(scales[n], zeros[n] if len(zeros) else zeros[0:0, 0], zero, sums[m])
            put(out, (m, n), total + (bias[n] if len(bias) else np.float32(0)))


@loop(parallel=True)
def dequantize_rows(
    packed: Array, scales: Array, zeros: Array, num_bits: int, out: Array
) -> None:  # pragma: no cover - compiled
    """out [N, K]: (code - zero) * scale in fp32, rounded once to out's type."""
    group_size = out.shape[1] // scales.shape[1]
    for n in numba.prange(len(packed)):
        codes = np.empty(packed.shape[1] * 8 // num_bits, np.uint8)
        unpack_row(packed[n], num_bits, codes)
        for g in range(scales.shape[1]):
            scale = get(scales, (n, g))
            zero = get(zeros, (n, g)) if len(zeros) else np.float32(1 << (num_bits - 1))
            part = codes[g * group_size : (g + 1) * group_size]
            target = out[n, g * group_size : (g + 1) * group_size]
            for k in range(len(part)):
                put(target, k, (np.float32(part[k]) - zero) * scale)
