"""What quantize_pack, quantize_activation and gptq_block must give, in float64, from the papers' formulas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


def unpacked(packed: torch.Tensor, bits: int, columns: int) -> np.ndarray:
    """Codes [N, K] of rows that are streams of ``bits``-bit numbers, lowest bits first; what follows must be 0."""
    stream = np.unpackbits(packed.contiguous().numpy().view(np.uint8), axis=1, bitorder="little")
    assert not stream[:, columns * bits :].any(), "bits after a row's last code are not 0"
    return stream[:, : columns * bits].reshape(len(stream), columns, bits) @ (1 << np.arange(bits))


def spread(scales: torch.Tensor, columns: int) -> np.ndarray:
    """Scales [N, G] as one a column, float64."""
    return np.repeat(scales.double().numpy(), columns // scales.shape[1], axis=1)


@dataclass
class Ranges:
    """Least and greatest (0 among them) of each group [N, G]."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, weight: torch.Tensor, groups: int) -> Ranges:
        parts = weight.double().numpy().reshape(len(weight), groups, -1)
        return cls(np.minimum(parts.min(-1), 0), np.maximum(parts.max(-1), 0))

    def scale(self, bits: int, symmetric: bool) -> np.ndarray:
        extent = 2 * np.maximum(-self.low, self.high) if symmetric else self.high - self.low
        return extent / (2**bits - 1)


def integer_codes(weight: torch.Tensor, scales: torch.Tensor, zeros: np.ndarray, bits: int) -> np.ndarray:
    """Unsigned codes by the stored scales and zeros; exact, as quotients of 16-bit floats are never near a tie."""
    steps = np.rint(weight.double().numpy() / spread(scales, weight.shape[1]))
    return np.clip(steps + np.repeat(zeros, weight.shape[1] // zeros.shape[1], axis=1), 0, 2**bits - 1)


def gptq_followed(
    W: np.ndarray, U: np.ndarray, s: np.ndarray, z: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(w / s + z when each code was chosen, errors) of GPTQ's columns that took ``codes``; s and z by column."""
    w, wanted, errors = W.copy(), np.empty_like(W), np.empty_like(W)
    for i in range(W.shape[1]):
        wanted[:, i] = w[:, i] / s[:, i] + z[:, i]
        errors[:, i] = (w[:, i] - (codes[:, i] - z[:, i]) * s[:, i]) / U[i, i]
        w[:, i + 1 :] -= np.outer(errors[:, i], U[i, i + 1 :])
    return wanted, errors
