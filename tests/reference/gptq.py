"""GPTQ in float64 from the paper's equations alone: one column at a time, explicit inverse updates.

arXiv:2210.17323. No blocks, no Cholesky factor, no torch: slow, plain, written apart from the package.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def hessian(inputs: Array, dampening: float) -> Array:
    """H = 2 X X^T / n, dampened by a share of its mean diagonal; an always-zero input gets 1."""
    x = inputs.astype(np.float64)
    h = 2 * x.T @ x / len(x)
    dead = np.diag(h) == 0
    h[dead, dead] = 1
    return h + dampening * np.mean(np.diag(h)) * np.eye(len(h))


def solve(weight: Array, h: Array, order: list[int], nearest: Callable[[Array, int, Array], Array]) -> Array:
    """Equations 2 and 3: quantize weight q, spread its error over the remaining set F, remove q from H_F^-1.

    nearest(column of weights [N], its index, all weights as compensated so far [N, K]) -> rounded [N].
    """
    w = weight.astype(np.float64).copy()
    result = np.zeros_like(w)
    inverse = np.linalg.inv(h)
    for q in order:
        result[:, q] = nearest(w[:, q], q, w)
        error = (w[:, q] - result[:, q]) / inverse[q, q]
        w -= np.outer(error, inverse[q])
        w[:, q] = result[:, q]
        inverse = inverse - np.outer(inverse[:, q], inverse[q]) / inverse[q, q]
    return result
