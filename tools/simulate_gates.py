"""How often gates are wrong at the very limit, and how much text they need: the tables of docs/gates.md.

    python tools/simulate_gates.py [--trials 1000]

At the boundary the true loss equals the limit, so that neither a pass nor a failure is right; each is to be claimed
at most one time in twenty. Texts are drawn from real window losses (tests/data/window_losses.npz: the demo model,
quantized with several calibration seeds, windows of 256 tokens) by circular blocks of 16 windows, which keeps what
neighbours have in common, so that the mean over the whole series is the truth; and from made-up laws that are worse.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from quantrecipe.runner.stats.mean import Mean
from quantrecipe.runner.stats.spending import ALPHA, look_sizes, spent

DATA = Path(__file__).parents[1] / "tests" / "data" / "window_losses.npz"
WINDOW, NEIGHBOURS = 256, 16
Draw = Callable[[np.random.Generator, int], np.ndarray]


def recorded() -> dict[str, np.ndarray]:
    """Name -> quantized minus original loss of each window, in the order of the text."""
    with np.load(DATA) as held:
        names = sorted(name.removesuffix("/original") for name in held.files if name.endswith("/original"))
        return {name: (held[f"{name}/quantized"] - held[f"{name}/original"]).astype(float) for name in names}


def resampled(series: np.ndarray) -> Draw:
    """Texts like this one, whose true mean is the series' own."""

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        starts = rng.integers(0, len(series), -(-count // NEIGHBOURS))
        places = (starts[:, None] + np.arange(NEIGHBOURS)).ravel()[:count]
        return series[places % len(series)] - series.mean()

    return draw


def _documents(count: int) -> Draw:
    """Few documents, each with an effect of its own half as large as the spread of a window."""

    def draw(rng: np.random.Generator, windows: int) -> np.ndarray:
        return rng.normal(size=windows) + 0.5 * rng.normal(size=count)[np.arange(windows) * count // windows]

    return draw


MADE_UP: dict[str, Draw] = {
    "independent, normal": lambda rng, count: rng.normal(size=count),
    "heavy tails (t, 3 degrees)": lambda rng, count: rng.standard_t(3, size=count),
    "skewed (exponential)": lambda rng, count: rng.exponential(size=count) - 1,
    "10 documents": _documents(10),
    "5 documents": _documents(5),
    "3 documents": _documents(3),
}


def verdict(text: np.ndarray, limit: float, sizes: list[int]) -> tuple[str, int]:
    """What a gate says of a text whose windows come in random order of looks, and at how many windows."""
    for size, alpha in zip(sizes, spent(sizes), strict=True):
        chosen = np.sort(np.linspace(0, len(text) - 1, size).round().astype(int))
        found = Mean(text[chosen].tolist())
        if found.p_under(limit) <= alpha:
            return "pass", size
        if found.p_over(limit) <= alpha:
            return "fail", size
    return "unsure", sizes[-1]


def rates(draw: Draw, limit: float, sizes: list[int], trials: int, seed: int = 0) -> dict[str, float]:
    """Shares of passes and failures, and the mean number of windows looked at."""
    rng = np.random.default_rng(seed)
    found = [verdict(draw(rng, sizes[-1]), limit, sizes) for _ in range(trials)]
    outcomes = [outcome for outcome, _ in found]
    return {
        "pass": outcomes.count("pass") / trials,
        "fail": outcomes.count("fail") / trials,
        "windows": float(np.mean([windows for _, windows in found])),
    }


def boundary(trials: int) -> None:
    """Wrong passes and failures where the truth is the limit."""
    print(f"Truth = limit, {trials} texts each, one-sided error allowed {ALPHA:.1%} (claimed: at most 5 %)\n")
    print("| window losses | 60 windows: wrong pass | wrong fail | five looks, 24 to 384: wrong pass | wrong fail |")
    print("|---|--:|--:|--:|--:|")
    laws = {f"real: {name}": resampled(series) for name, series in recorded().items()} | MADE_UP
    for name, draw in laws.items():
        row = [rates(draw, 0.0, sizes, trials) for sizes in ([60], look_sizes(24, 384))]
        cells = " | ".join(f"{100 * one[key]:.1f} %" for one in row for key in ("pass", "fail"))
        print(f"| {name} | {cells} |", flush=True)


def power(trials: int) -> None:
    """Text that settles a limit of 1 % where the truth is 0 % or 2 %."""
    print("\nTokens after which 90 % of the texts settle a limit of 1 % (truth: 0 %, so that a pass is right)\n")
    print("| window losses | spread of a window, nats | windows | tokens |")
    print("|---|--:|--:|--:|")
    limit = float(np.log1p(0.01))
    for name, series in recorded().items():
        draw, enough = resampled(series), None
        for windows in (4, 6, 8, 10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 900, 1280):
            if rates(draw, limit, [windows], max(trials // 4, 50))["pass"] >= 0.9:
                enough = windows
                break
        told = "more" if enough is None else f"{enough:,} | {enough * (WINDOW - 1):,}"
        print(f"| {name} | {series.std():.4f} | {told} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    args = parser.parse_args()
    boundary(args.trials)
    power(args.trials)


if __name__ == "__main__":
    main()
