"""Codes and words by plain Python integers: what INTEROP.md says, bit by bit."""

from __future__ import annotations

import numpy as np


def pack(values: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned values [R, C] -> int32 words [R, ceil(C bits / 32)], lowest index in the lowest bits."""
    rows = []
    for row in values.tolist():
        stream = sum(int(value) << (bits * index) for index, value in enumerate(row))
        count = -(-len(row) * bits // 32)
        rows.append([(stream >> (32 * word)) & 0xFFFFFFFF for word in range(count)])
    return np.array(rows, dtype=np.uint32).view(np.int32)


def round_to_nearest(weight: np.ndarray, bits: int, group: int, symmetric: bool) -> tuple[np.ndarray, ...]:
    """(codes, scales, zeros) in float64 of weight [N, K]; codes and zeros unsigned, 0 … 2^bits - 1."""
    top, half = 2**bits - 1, 2 ** (bits - 1)
    parts = weight.reshape(len(weight), -1, group)
    low, high = np.minimum(parts.min(-1), 0), np.maximum(parts.max(-1), 0)
    scale = np.maximum(-low, high) / (top / 2) if symmetric else (high - low) / top
    scale = np.where(scale == 0, np.finfo(np.float32).eps, scale)
    zero = np.full_like(scale, half) if symmetric else np.clip(np.round(-low / scale), 0, top)
    codes = np.clip(np.round(parts / scale[..., None]) + zero[..., None], 0, top)
    return codes.reshape(weight.shape), scale, zero
