"""Dense symmetric matrices worked on in place, by blocks, so that none needs a second of its size.

A is fp32 [K, K], contiguous. A symmetric A is told by either triangle; ``cholesky_`` and ``invert_lower_`` write
the lower one and the diagonal only, and leave what lies above as it is. At K = 57344 (BLOOM-176B's fc2) A is
13.2 GB, a block's row 117 MB.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

BLOCK = 512


def blocks(size: int) -> Iterator[tuple[int, int]]:
    """Bounds of the blocks of [0, size)."""
    for start in range(0, size, BLOCK):
        yield start, min(start + BLOCK, size)


def mirror_(A: torch.Tensor, lower: bool) -> None:
    """Make A symmetric from its lower (or its upper) triangle."""
    for start, stop in blocks(len(A)):
        below, above = A[stop:, start:stop], A[start:stop, stop:]
        (above if lower else below).copy_((below if lower else above).t())
        tile = A[start:stop, start:stop]
        kept = tile.tril() if lower else tile.triu()
        tile.copy_(kept + (kept.tril(-1) if lower else kept.triu(1)).t())


def permute_(A: torch.Tensor, index: torch.Tensor) -> None:
    """Rows and columns of a whole A taken in the order of ``index``."""
    for start, stop in blocks(len(A)):
        A[start:stop] = A[start:stop][:, index]
    for start, stop in blocks(len(A)):
        A[:, start:stop] = A[:, start:stop][index]


def reverse_(A: torch.Tensor) -> None:
    """Rows and columns in reverse, which is the flat A in reverse: triangles change places."""
    flat = A.view(-1)
    half, step = len(flat) // 2, BLOCK * max(len(A), 1)
    for start in range(0, half, step):
        stop = min(start + step, half)
        front, back = flat[start:stop], flat[len(flat) - stop : len(flat) - start]
        held = front.flip(0)
        front.copy_(back.flip(0))
        back.copy_(held)


def cholesky_(A: torch.Tensor) -> bool:
    """A = L L^T, with L put into the lower triangle; False where A is not positive definite."""
    for start, stop in blocks(len(A)):
        tile = A[start:stop, start:stop]
        L, failed = torch.linalg.cholesky_ex(tile)
        if failed:
            return False
        _set_lower(tile, L)
        panel = A[stop:, start:stop]
        panel.copy_(torch.linalg.solve_triangular(L.t(), panel, upper=True, left=False))
        _subtract_square(A[stop:, stop:], panel)
    return True


def _subtract_square(A: torch.Tensor, panel: torch.Tensor) -> None:
    """A -= P P^T in the lower triangle alone."""
    for start, stop in blocks(len(A)):
        A[start:stop, :start].addmm_(panel[start:stop], panel[:start].t(), alpha=-1)
        tile = A[start:stop, start:stop]
        tile.sub_((panel[start:stop] @ panel[start:stop].t()).tril_())


def invert_lower_(A: torch.Tensor) -> None:
    """The lower triangle L replaced by L^-1, from the last block to the first."""
    for start, stop in reversed(list(blocks(len(A)))):
        tile = A[start:stop, start:stop]
        inverse = torch.linalg.solve_triangular(tile.tril(), torch.eye(len(tile), device=A.device), upper=False)
        _multiply_lower(A[stop:, stop:], A[stop:, start:stop] @ inverse, A[stop:, start:stop])
        _set_lower(tile, inverse)


def _multiply_lower(V: torch.Tensor, X: torch.Tensor, out: torch.Tensor) -> None:
    """out = -V X for the lower triangle V."""
    for start, stop in blocks(len(V)):
        product = V[start:stop, start:stop].tril() @ X[start:stop]
        out[start:stop] = product.addmm_(V[start:stop, :start], X[:start]).neg_()


def _set_lower(tile: torch.Tensor, lower: torch.Tensor) -> None:
    tile.copy_(lower.tril() + tile.triu(1))
