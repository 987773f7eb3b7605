"""In-place linear algebra against numpy in float64, across block borders."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quantrecipe.plugins.native import triangular

SIZES = (1, 2, 7, 8, 9, 30)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triangular, "BLOCK", 8)


def positive(size: int) -> torch.Tensor:
    x = torch.randn(3 * size, size, generator=torch.Generator().manual_seed(size))
    return x.t() @ x / size


def marked(A: torch.Tensor) -> torch.Tensor:
    """The lower triangle of A under a strict upper one that nothing may touch."""
    return A.tril() + torch.full_like(A, 7.0).triu(1)


@pytest.mark.parametrize("size", SIZES)
def test_cholesky_then_inverse_write_the_lower_triangle_alone(size: int) -> None:
    A = positive(size)
    worked = marked(A)
    assert triangular.cholesky_(worked)
    L = np.linalg.cholesky(A.double().numpy())
    assert np.allclose(worked.tril().numpy(), L, atol=1e-4)
    triangular.invert_lower_(worked)
    assert np.allclose(worked.tril().numpy(), np.linalg.inv(L), atol=1e-3)
    assert bool((worked.triu(1) == torch.full_like(A, 7.0).triu(1)).all())


@pytest.mark.parametrize("place", [0, 9, 29])
def test_not_positive_definite_is_found_and_can_be_mended(place: int) -> None:
    A = positive(30)
    A[place, place] = -1
    worked = A.clone()
    assert not triangular.cholesky_(worked)
    worked.diagonal().copy_(A.diagonal())
    triangular.mirror_(worked, lower=False)
    assert torch.equal(worked, A)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("lower", [False, True])
def test_mirror(size: int, lower: bool) -> None:
    A = positive(size)
    A = (A + A.t()) / 2
    worked = A.tril() if lower else A.triu()
    triangular.mirror_(worked, lower)
    assert torch.equal(worked, A)


@pytest.mark.parametrize("size", SIZES)
def test_permute_and_reverse(size: int) -> None:
    A = torch.randn(size, size, generator=torch.Generator().manual_seed(3))
    index = torch.randperm(size, generator=torch.Generator().manual_seed(4))
    worked = A.clone()
    triangular.permute_(worked, index)
    assert torch.equal(worked, A[index][:, index])
    triangular.reverse_(worked)
    assert torch.equal(worked, A[index][:, index].flip(0, 1))
