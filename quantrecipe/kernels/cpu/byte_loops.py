"""Compiled loops over int8 and float8 numbers: products of a few rows, activations to int8, 4 bits to int8."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from quantrecipe.kernels.cpu.layout import BLOCK
from quantrecipe.kernels.cpu.loops import plane_of_4
from quantrecipe.kernels.cpu.numbers import get, loop, put

Array = Any


@loop(parallel=True)
def integer_product(q: Array, weight: Array, out: Array) -> None:  # pragma: no cover - compiled
    """out int32 [M, N] of int8 q [M, K] and weight [N, K]; the compiler finds the dot products of four bytes."""
    for n in numba.prange(len(weight)):
        row = weight[n]
        for m in range(len(q)):
            given, total = q[m], np.int32(0)
            for k in range(len(row)):
                total += np.int32(np.int32(given[k]) * np.int32(row[k]))
            out[m, n] = total


@loop(parallel=True)
def dequantize_bytes(weight: Array, scales: Array, out: Array) -> None:  # pragma: no cover - compiled
    """out [N, K] = int8 weight [N, K] * scales [N], rounded once."""
    for n in numba.prange(len(weight)):
        row, target, scale = weight[n], out[n], get(scales, n)
        for k in range(len(row)):
            put(target, k, np.float32(row[k]) * scale)


@loop()
def to_int8(x: Array, smooth: Array, group_size: int, codes: Array, scales: Array) -> None:  # pragma: no cover
    """codes int8 [M, K], scales fp32 [M, G] of x [M, K], divided by smooth [K] where that is not empty."""
    numbers = np.empty(x.shape[1], np.float32)
    for m in range(len(x)):
        for k in range(x.shape[1]):
            numbers[k] = get(x, (m, k)) / smooth[k] if len(smooth) else get(x, (m, k))
        for g in range(scales.shape[1]):
            part, target = numbers[g * group_size : (g + 1) * group_size], codes[m, g * group_size :]
            largest = np.float32(0)
            for k in range(len(part)):
                largest = max(largest, abs(part[k]))
            scale = largest / np.float32(127.5)
            if scale == 0:
                scale = np.float32(1.1920929e-07)
            scales[m, g] = scale
            for k in range(len(part)):
                target[k] = np.int8(min(max(np.rint(part[k] / scale), np.float32(-128)), np.float32(127)))


@loop(parallel=True)
def nibbles_to_int8(packed: Array, group_scales: Array, out: Array) -> None:  # pragma: no cover - compiled
    """out int8 [N, K] = (code - 8) * group_scale [N, G] of packed codes; no group_scales: 1."""
    columns = packed.shape[1] * 2
    for n in numba.prange(len(packed)):
        codes, target = np.empty(columns, np.uint8), out[n]
        plane_of_4(packed[n], np.uint8(1), codes)
        groups = group_scales.shape[1] if len(group_scales) else 1
        size = len(target) // groups
        for g in range(groups):
            scale = group_scales[n, g] if len(group_scales) else np.int8(1)
            for k in range(g * size, (g + 1) * size):
                target[k] = np.int8(np.int8(codes[k] - np.uint8(8)) * scale)


@loop()
def from_float8(row: Array, numbers: Array) -> None:  # pragma: no cover - compiled
    """fp32 numbers of e4m3 bytes: the bits, moved into an fp32, times 2^120; subnormals come out right. No NaN.

    Every step is told to stay in 32 bits, else the compiler takes 64 and half as many at a time.
    """
    for k in range(len(row)):
        bits = np.uint32(row[k])
        sign = np.uint32(np.uint32(bits & np.uint32(0x80)) << np.uint32(24))
        rest = np.uint32(np.uint32(bits & np.uint32(0x7F)) << np.uint32(20))
        numbers[k] = np.uint32(sign | rest).view(np.float32) * np.float32(1.329227995784916e36)


@loop(parallel=True)
def float8_rows(weight: Array, out: Array) -> None:  # pragma: no cover - compiled
    """out [N, K] of e4m3 bytes weight [N, K]; torch's own conversion takes ten times as long."""
    for n in numba.prange(len(weight)):
        numbers, target = np.empty(weight.shape[1], np.float32), out[n]
        from_float8(weight[n], numbers)
        for k in range(len(numbers)):
            put(target, k, numbers[k])


@loop()
def dot(first: Array, second: Array) -> Any:  # pragma: no cover - compiled
    """fp32 sum of products, in blocks of a length that the compiler knows."""
    total, whole = np.float32(0), len(first) // BLOCK * BLOCK
    for b in range(0, whole, BLOCK):
        given, numbers, some = first[b : b + BLOCK], second[b : b + BLOCK], np.float32(0)
        for k in range(BLOCK):
            some += given[k] * np.float32(numbers[k])
        total += some
    for k in range(whole, len(first)):
        total += first[k] * np.float32(second[k])
    return total


@loop(parallel=True)
def times_bytes(x: Array, weight: Array, scales: Array, bias: Array, out: Array) -> None:  # pragma: no cover
    """out [M, N] of fp32 x [M, K], int8 weight [N, K], scales [N], bias fp32 [N] or empty."""
    for n in numba.prange(len(weight)):
        row, scale = weight[n], get(scales, n)  # read in the loop below, numba 0.68.1 drops the stores
        for m in range(len(x)):
            total = dot(x[m], row) * scale
            put(out, (m, n), total + (bias[n] if len(bias) else np.float32(0)))


@loop(parallel=True)
def times_float8(x: Array, weight: Array, scales: Array, bias: Array, out: Array) -> None:  # pragma: no cover
    """out [M, N] of fp32 x [M, K], e4m3 bytes weight [N, K], scales fp32 [N], bias fp32 [N] or empty."""
    for n in numba.prange(len(weight)):
        numbers = np.empty(weight.shape[1], np.float32)
        from_float8(weight[n], numbers)
        for m in range(len(x)):
            total = dot(x[m], numbers) * scales[n]
            put(out, (m, n), total + (bias[n] if len(bias) else np.float32(0)))
