"""The published schemas agree with the code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_schemas_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("export_schemas", ROOT / "tools" / "export_schemas.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path, text in module.texts().items():
        assert path.read_text(encoding="utf-8") == text, "run python tools/export_schemas.py"


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


def test_the_page_shows_what_the_commands_print() -> None:
    spec = importlib.util.spec_from_file_location("advisor_docs", ROOT / "tools" / "advisor_docs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.PAGE.read_text(encoding="utf-8")
    assert text == module.filled(text), "run python tools/advisor_docs.py"
