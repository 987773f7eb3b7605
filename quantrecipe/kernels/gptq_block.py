"""GPTQ's inner loop: the columns of one block, rows in parallel, compiled by numba (CPU)."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(parallel=True, cache=True, fastmath={"contract"}, error_model="numpy")
def quantize_columns(  # noqa: PLR0913, PLR0917 - numba takes arrays, not objects
    W: np.ndarray,
    U: np.ndarray,
    start: int,
    stop: int,
    scale: np.ndarray,
    zero: np.ndarray,
    group: np.ndarray,
    low: float,
    high: float,
    codes: np.ndarray,
    errors: np.ndarray,
) -> None:  # pragma: no cover - compiled
    """Algorithm 1 of arXiv:2210.17323, columns [start, stop), all in one pass over a row's block.

    W: fp32 [N, K], read only. U: fp32 [K, K] upper. scale, zero: fp32 [N, G]. group: int64 [K], the
    scale of each column. codes: int8 [N, K], written in [start, stop). errors: fp32 [N, stop - start],
    written with (w - w_q) / U_jj, which the trailing update needs.
    """
    width = stop - start
    for row in numba.prange(W.shape[0]):
        w = W[row, start:stop].copy()
        for i in range(width):
            column = start + i
            s = scale[row, group[column]]
            z = zero[row, group[column]]
            q = min(max(np.rint(w[i] / s) + z, low), high)
            error = (w[i] - (q - z) * s) / U[column, column]
            codes[row, column] = np.int8(q)
            errors[row, i] = error
            rest, u = w[i + 1 :], U[column, column + 1 : stop]  # slices: plain indices vectorize
            for j in range(u.shape[0]):
                rest[j] -= error * u[j]
