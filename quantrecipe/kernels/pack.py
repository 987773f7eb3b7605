"""Codes packed into 32-bit words, compiled by numba (CPU); several times as fast as tensor operations."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def pack_rows(codes: np.ndarray, bits: int, words: np.ndarray) -> None:  # pragma: no cover - compiled
    """words int32 [N, ceil(K b / 32)] of codes int8 [N, K]: value i is bits i*b … of a row's stream, unsigned.

    Codes are signed; 2^(b-1) is added, as compressed-tensors' pack_to_int32 does.
    """
    offset = np.uint64(1 << (bits - 1))
    mask = np.uint64((1 << bits) - 1)
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for row in range(codes.shape[0]):
        held, filled, word = np.uint64(0), 0, 0
        for column in range(codes.shape[1]):
            held |= ((np.uint64(codes[row, column]) + offset) & mask) << np.uint64(filled)
            filled += bits
            if filled >= 32:
                words[row, word] = np.int32(held & low)
                held >>= shift
                filled -= 32
                word += 1
        if filled:
            words[row, word] = np.int32(held & low)


@numba.njit(nogil=True, cache=True)
def pack_rows_evenly(codes: np.ndarray, bits: int, words: np.ndarray) -> None:  # pragma: no cover - compiled
    """The same where a word holds a whole number of codes and a row whole words: the inner loop unrolls."""
    each = 32 // bits
    offset = np.int32(1 << (bits - 1))
    for row in range(codes.shape[0]):
        for word in range(words.shape[1]):
            packed = np.uint32(0)
            for place in range(each):
                value = np.uint32(np.int32(codes[row, word * each + place]) + offset)
                packed |= value << np.uint32(place * bits)
            words[row, word] = np.int32(packed)
