"""The best approximation of a matrix at a low rank."""

from __future__ import annotations

import torch

#: Matrices whose smaller side is at most this are decomposed exactly; the work grows with its cube.
EXACT = 2048
OVERSAMPLING, ITERATIONS = 16, 6


def truncated_svd(E: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U [N, r], S [r], V^T [r, K] of the largest singular values of E [N, K], in fp32.

    Exact for small matrices, by the eigenvectors of the smaller Gram matrix in fp64; else by subspace iteration from
    a fixed start (Halko, Martinsson and Tropp, arXiv:0909.4061, algorithm 4.4).
    """
    if min(E.shape) <= EXACT:
        return _exact(E, rank)
    generator = torch.Generator(E.device).manual_seed(0)
    width = min(rank + OVERSAMPLING, *E.shape)
    Q = torch.linalg.qr(E @ torch.randn(E.shape[1], width, generator=generator, device=E.device))[0]
    for _ in range(ITERATIONS):
        Q = torch.linalg.qr(E @ torch.linalg.qr(E.t() @ Q)[0])[0]
    U, S, Vt = _exact(Q.t() @ E, rank)
    return Q @ U, S, Vt


def _exact(E: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    if E.shape[0] > E.shape[1]:
        U, S, Vt = _exact(E.t(), rank)
        return Vt.t(), S, U.t()
    wide = E.double()
    values, vectors = torch.linalg.eigh(wide @ wide.t())
    U = vectors.flip(1)[:, :rank]
    S = values.flip(0)[:rank].clamp_min(0).sqrt()
    Vt = (U.t() @ wide) / S.clamp_min(1e-30).unsqueeze(1)
    return U.float(), S.float(), Vt.float()
