"""Looking more than once: how much error each look may spend, and Holm's step-down for what is called failed."""

from __future__ import annotations

from collections.abc import Mapping

from quantrecipe.runner.intervals import CONFIDENCE

MOST_LOOKS = 5
ALPHA = (1 - CONFIDENCE) / 2


def look_sizes(first: int, most: int) -> list[int]:
    """Windows at each look, from ``first`` to ``most``, at most five; doubled, or by a larger factor to arrive."""
    if first >= most:
        return [most]
    looks = next((k for k in range(2, MOST_LOOKS) if first * 2 ** (k - 1) >= most), MOST_LOOKS)
    return [round(first * (most / first) ** (step / (looks - 1))) for step in range(looks)]


def spent(sizes: list[int], alpha: float = ALPHA) -> list[float]:
    """What each look may err, one-sided; adds up to ``alpha``, so that by Boole all looks together err no more.

    The spending function of Lan and DeMets (Discrete sequential boundaries for clinical trials, Biometrika 70,
    1983) with Kim and DeMets' power 1 (Biometrika 74, 1987): error in proportion to the windows seen. Adding
    the looks' errors, rather than integrating over their joint law, holds whatever their dependence.
    """
    seen = [0, *sizes]
    return [alpha * (after - before) / sizes[-1] for before, after in zip(seen, sizes, strict=False)]


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values (Holm, A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6, 1979)."""
    ordered = sorted(p_values.items(), key=lambda pair: pair[1])
    found, most = {}, 0.0
    for rank, (name, p) in enumerate(ordered):
        most = max(most, min(1.0, (len(ordered) - rank) * p))
        found[name] = most
    return found
