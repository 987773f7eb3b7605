"""How fast qadvise answers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_cold_start_is_within_its_limits() -> None:
    spec = importlib.util.spec_from_file_location("cold_start", ROOT / "benchmarks" / "cold_start.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    medians = module.measure(9)
    floor = medians.pop("floor")
    over = {n: v / floor for n, v in medians.items() if v / floor > module.COMMANDS[n][0]}
    assert not over
