"""What was measured of a mix itself, in sentences."""

from __future__ import annotations

import torch

from quantrecipe.mixed.refine import Refined, Trial
from quantrecipe.runner.intervals import Interval


def verified_lines(refined: Refined, held: torch.Tensor) -> tuple[str, ...]:
    """Predicted against measured, against uniform in the same bytes, and what moving it brought.

    held: int64 [windows, length], what it was measured on.
    """
    best = refined.best
    count, length = held.shape
    lines = [
        f"over {count} x {length} tokens kept apart: KL {best.kl:.4g} nats a token, {best.predicted:.4g} predicted; "
        f"perplexity {_share(best.measured.increase)}"
    ]
    lines += [_against(best, one) for one in refined.trials if one.name.startswith("uniform") and one is not best]
    moved = [one for one in refined.trials if one.name.startswith("round")]
    if moved:
        paid = next((one for one in moved if one is best), None)
        outcome = f"brought KL to {paid.kl:.4g}" if paid else "did not pay"
        first = refined.trials[0]
        lines.append(f"moves from the mix predicted best (KL {first.kl:.4g}) {outcome}; {len(moved)} tried")
    return tuple(lines)


def _against(best: Trial, other: Trial) -> str:
    """The best uniform scheme that fits."""
    ratio = best.kl / other.kl if other.kl else 1.0
    less = best.measured.less_kl_than(other.measured)
    return f"{other.name}, which fits too: KL {other.kl:.4g}; this mix has {ratio:.0%} of it{_interval(less)}"


def _interval(found: Interval) -> str:
    if found.low is None or found.high is None:
        return ""
    return f" (difference, 95 %: {found.low:.4g} to {found.high:.4g})"


def _share(found: Interval) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:+.2%}"
    return f"{found.value:+.2%} (95 %: {found.low:+.2%} to {found.high:+.2%})"
