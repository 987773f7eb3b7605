"""Number types in float64, written from their definitions: every representable number, the nearest one by search."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

Array = np.ndarray


def nf4_table() -> Array:
    """QLoRA, equation 4 and appendix E: quantiles of N(0, 1), eight positive, seven negative, and 0.

    The offset that the authors' code takes: 1 - (1 / (2 * 15) + 1 / (2 * 16)) / 2.
    """
    offset = 1 - (1 / 30 + 1 / 32) / 2
    positive = norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    negative = -norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    values = np.sort(np.concatenate([positive, negative, [0.0]]))
    return values / values.max()


def nearest(values: Array, table: Array) -> Array:
    """The number of ``table`` nearest to each value."""
    return table[np.abs(values[..., None] - table).argmin(-1)]


def blockwise(weight: Array, table: Array, size: int) -> Array:
    """QLoRA, section 3: blocks of the flattened weight over their absmax, the nearest of the table, times absmax."""
    blocks = weight.astype(np.float64).reshape(-1, size)
    absmax = np.abs(blocks).max(-1, keepdims=True)
    return (nearest(blocks / absmax, table) * absmax).reshape(weight.shape)


def float_numbers(exponent_bits: int, mantissa_bits: int, largest: float) -> Array:
    """All finite numbers of a small float with bias 2^(e-1) - 1, subnormals included, both signs."""
    bias = 2 ** (exponent_bits - 1) - 1
    found = {0.0}
    for exponent in range(2**exponent_bits):
        for mantissa in range(2**mantissa_bits):
            fraction = mantissa / 2**mantissa_bits
            number = 2.0 ** (1 - bias) * fraction if exponent == 0 else 2.0 ** (exponent - bias) * (1 + fraction)
            found |= {number} if number <= largest else set()
    return np.array(sorted(found | {-number for number in found}))


def abfloat_numbers() -> Array:
    """OliVe, section 4.2: (2 + mantissa) << (exponent + bias 2), without the code of 0; both signs."""
    sizes = [(2 + m) << (e + 2) for e in range(4) for m in range(2) if (e, m) != (0, 0)]
    return np.array(sorted([*sizes, *(-size for size in sizes)]), dtype=np.float64)


def olive_pairs(x: Array) -> Array:
    """OliVe, algorithm 1, on numbers in steps of the scale: at most one outlier a pair, its neighbour becomes 0."""
    result = np.round(x.astype(np.float64))
    for row in range(x.shape[0]):
        for at in range(0, x.shape[1], 2):
            pair = x[row, at : at + 2]
            if np.abs(np.round(pair)).max() > 7:
                kept = int(abs(pair[1]) > abs(pair[0]))
                result[row, at + kept] = nearest(pair[kept : kept + 1], abfloat_numbers())[0]
                result[row, at + 1 - kept] = 0
    return result


def hqq_objective(weight: Array, scale: Array, zero: Array, bits: int, p: float) -> Array:
    """||W - s (clip(round(W / s + z)) - z)||_p^p by rows; weight [R, n], scale and zero [R, 1]."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    codes = np.clip(np.round(weight / scale + zero), low, high)
    return (np.abs(weight - (codes - zero) * scale) ** p).sum(-1)
