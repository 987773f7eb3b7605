"""Hadamard matrices: entries 1 and -1, rows orthogonal. By Paley's constructions and Kronecker products.

R. E. A. C. Paley, "On orthogonal matrices", J. Math. Phys. 12 (1933). Type I: order q + 1 for a prime q = 3 mod 4;
type II: order 2 (q + 1) for a prime q = 1 mod 4. With powers of two: 12, 20, 24, 28, 36, 44, 48, 60, 104 ….
"""

from __future__ import annotations

from functools import cache

import torch


@cache
def paley(order: int) -> torch.Tensor | None:
    """An irreducible factor: int8 [order, order]; None where neither construction with a prime gives this order."""
    if order in (1, 2):
        return torch.tensor([[1, 1], [1, -1]], dtype=torch.int8)[:order, :order]
    if order % 4:
        return None
    if _is_prime(order - 1):
        return _type_one(order - 1)
    q = order // 2 - 1
    return _type_two(q) if q % 4 == 1 and _is_prime(q) else None


def factors(size: int) -> tuple[int, ...] | None:
    """Orders whose Kronecker product has ``size`` rows, powers of two last; None where no such product is known.

    The first takes as few twos as it can: 576 = 36 x 16, not 144 x 4.
    """
    twos = size & -size
    odd = size // twos
    for part in (2**k for k in range(twos.bit_length())):
        order = odd * part
        if (odd == 1 or part >= 4) and paley(order) is not None:
            return tuple(one for one in (order, *_powers(twos // part)) if one > 1) or (1,)
    return None


def _powers(power: int) -> list[int]:
    """A power of two as factors of at most 128."""
    found = []
    while power > 1:
        found.append(min(power, 128))
        power //= found[-1]
    return found


def factor_matrix(order: int) -> torch.Tensor:
    """Sylvester's for a power of two, else Paley's: int8 [order, order], its first column all ones."""
    matrix = _sylvester(order) if order & (order - 1) == 0 else paley(order)
    assert matrix is not None
    return matrix * matrix[:, :1]


def _sylvester(order: int) -> torch.Tensor:
    matrix, two = torch.ones(1, 1, dtype=torch.int8), torch.tensor([[1, 1], [1, -1]], dtype=torch.int8)
    while len(matrix) < order:
        matrix = torch.kron(two, matrix)
    return matrix


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _jacobsthal(q: int) -> torch.Tensor:
    """Q[i, j] = the quadratic character of i - j modulo q."""
    character = torch.full((q,), -1, dtype=torch.int8)
    numbers = torch.arange(q)
    character[numbers * numbers % q] = 1
    character[0] = 0
    return character[(numbers.unsqueeze(1) - numbers) % q]


def _bordered(q: int, corner: int, left: int) -> torch.Tensor:
    """[[corner, 1], [left, Q]]."""
    matrix = torch.ones(q + 1, q + 1, dtype=torch.int8)
    matrix[0, 0], matrix[1:, 0], matrix[1:, 1:] = corner, left, _jacobsthal(q)
    return matrix


def _type_one(q: int) -> torch.Tensor:
    """I + S with S = [[0, 1], [-1, Q]] skew."""
    return torch.eye(q + 1, dtype=torch.int8) + _bordered(q, 0, -1)


def _type_two(q: int) -> torch.Tensor:
    """S = [[0, 1], [1, Q]] symmetric: each 0 becomes [[1, -1], [-1, -1]], each +-1 becomes +-[[1, 1], [1, -1]]."""
    zero, one = torch.tensor([[1, -1], [-1, -1]]), torch.tensor([[1, 1], [1, -1]])
    S = _bordered(q, 0, 1)
    return (torch.kron((S == 0).to(torch.int8), zero) + torch.kron(S, one)).to(torch.int8)
