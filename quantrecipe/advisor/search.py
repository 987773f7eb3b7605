"""The largest whole number that passes a test which only larger numbers fail."""

from __future__ import annotations

from collections.abc import Callable


def largest(passes: Callable[[int], bool], most: int) -> int:
    """The largest n from 1 to ``most`` for which ``passes(n)``; 0 where there is none. By bisection."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if passes(middle) else (low, middle - 1)
    return low
