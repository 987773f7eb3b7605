"""At the boundary, over real window losses and calibration seeds, gates are wrong at most one time in twenty."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest

from quantrecipe.runner.stats.spending import look_sizes

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulate_gates", ROOT / "tools" / "simulate_gates.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _most(trials: int) -> float:
    """Five percent and two standard errors of the simulation."""
    return 0.05 + 2 * math.sqrt(0.05 * 0.95 / trials)


@pytest.mark.parametrize("sizes", [[60], look_sizes(24, 384)])
@pytest.mark.parametrize("name", ["demo-w4-rtn", "demo-w4-gptq-1"])
def test_wrong_passes_and_fails_at_the_limit(name: str, sizes: list[int], tool: ModuleType) -> None:
    found = tool.rates(tool.resampled(tool.recorded()[name]), 0.0, sizes, 150)
    assert max(found["pass"], found["fail"]) <= _most(150)


def test_a_loss_that_is_not_there_is_settled_with_little_text(tool: ModuleType) -> None:
    draw = tool.resampled(tool.recorded()["demo-w4-rtn"])
    assert tool.rates(draw, math.log1p(0.01), [60], 100)["pass"] > 0.9
    assert tool.rates(draw, -math.log1p(0.01), [60], 100)["fail"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[40], [60], look_sizes(24, 384)])
def test_every_seed_and_law(sizes: list[int], tool: ModuleType) -> None:
    laws = [tool.resampled(series) for series in tool.recorded().values()]
    laws += [draw for name, draw in tool.MADE_UP.items() if name != "3 documents"]
    for draw in laws:
        found = tool.rates(draw, 0.0, sizes, 500)
        assert max(found["pass"], found["fail"]) <= _most(500)
