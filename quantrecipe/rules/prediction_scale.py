"""The scale on which losses are compared: logarithmic, linear near zero, and tighter once a model collapses.

z = asinh(y / FLOOR) + log(FLOOR / 2) is log y for a loss y (nats) well above FLOOR and linear around zero, so
that a printed gain of 0.1 % is a number like any other. Above COLLAPSE a loss grows SEVERITY times faster than
below: papers agree that a model is broken, hardly on how badly. That is the hurdle: with noise on z the chance
of collapse is the chance that z passes log(COLLAPSE).
"""

from __future__ import annotations

import math

FLOOR = 0.003  # nats; by judgement: the size of an 8-bit row's scatter around zero
COLLAPSE = 0.5  # nats, +65 % perplexity
SEVERITY = 2.0
RUIN = 9.0  # nats; a broken model guesses, and guessing costs about this (by judgement): centres go no further
WORST = 14.0  # nats; the worst published loss is 13.0 (Llama-3-8B, 2-bit RTN)
_SHIFT = math.log(FLOOR / 2)
_EDGE = math.asinh(COLLAPSE / FLOOR) + _SHIFT


def to_latent(loss: float) -> float:
    """Nats -> z."""
    if loss <= COLLAPSE:
        return math.asinh(loss / FLOOR) + _SHIFT
    return _EDGE + math.log(loss / COLLAPSE) / SEVERITY


def to_loss(z: float) -> float:
    """z -> nats; increasing, bounded by WORST."""
    if z <= _EDGE:
        return FLOOR * math.sinh(max(z - _SHIFT, -5.0))
    return min(COLLAPSE * math.exp(min((z - _EDGE) * SEVERITY, 50.0)), WORST)


_CEILING = to_latent(RUIN)


def of_exponent(exponent: float) -> float:
    """log E -> z, before the hurdle: a small E flattens towards zero, a large one is its own logarithm."""
    return min(math.asinh(math.exp(min(exponent, 30.0)) / FLOOR) + _SHIFT, _CEILING)


def to_exponent(z: float) -> float:
    """The inverse of ``of_exponent``; a z at or under zero loss gives a loss of one part in a million."""
    return math.log(max(FLOOR * math.sinh(z - _SHIFT), 1e-6))


def log_sum(a: float, b: float) -> float:
    """log(exp a + exp b)."""
    high, low = (a, b) if a > b else (b, a)
    return high + math.log1p(math.exp(low - high)) if low > -math.inf else high


def logistic_quantile(p: float) -> float:
    """Standard logistic quantile; p outside (0, 1) is clipped to 1e-9 from its end."""
    p = min(max(p, 1e-9), 1 - 1e-9)
    return math.log(p / (1 - p))
