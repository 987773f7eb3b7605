"""The tables of benchmarks/methods.py and benchmarks/findings.py: what they cover, and how an outcome is judged."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from quantrecipe.plugins.native.backend import CAPABILITIES
from quantrecipe.runner.intervals import Interval

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import claims
import findings
import method_rows
import rows


def test_the_comparison_names_all_that_the_native_backend_can_do() -> None:
    recipes = [rows.Row("demo", name, one, rows.SMALL).recipe() for name, one in method_rows.ROWS.items()]
    parts = [recipe.quantization for recipe in recipes]
    methods = {group.method.name for part in parts for group in part.config_groups.values()}
    assert methods == set(CAPABILITIES.methods)
    assert {one.name for part in parts for one in part.transforms} == set(CAPABILITIES.transforms)
    assert {part.compensation.name for part in parts if part.compensation} == set(CAPABILITIES.compensations)
    types = {group.weights.type for part in parts for group in part.config_groups.values()}
    assert types == set(CAPABILITIES.weight_bits)


def test_claims_ask_for_rows_that_are_recipes() -> None:
    for claim in claims.CLAIMS:
        for test in claim.tests:
            assert test.rows
            for name in test.rows:
                rows.Row("demo", name, claims.ROWS[name], rows.SMALL).recipe()


@pytest.mark.parametrize(
    ("low", "high", "bound", "outcome"),
    [
        (0.01, 0.02, "above 0", "held"),
        (-0.02, -0.01, "above 0", "did not hold"),
        (-0.01, 0.01, "above 0", "cannot tell"),
        (-0.002, 0.004, "below tie", "held"),
        (-0.5, -0.4, "below tie", "held"),
        (0.006, 0.02, "below tie", "did not hold"),
        (0.001, 0.02, "below tie", "cannot tell"),
        (-0.004, 0.004, "within tie", "held"),
        (-0.02, -0.006, "within tie", "did not hold"),
        (-0.02, 0.001, "within tie", "cannot tell"),
        (None, None, "above 0", "cannot tell"),
    ],
)
def test_an_outcome_needs_the_whole_interval(low: Any, high: Any, bound: Any, outcome: str) -> None:
    assert findings.judged(Interval(0.0, low, high, 40), bound) == outcome


def keep(bench: findings.Bench, model: str, name: str, original: float, lost: float) -> None:
    """A row whose windows all lose alike."""
    windows = [original + 0.1 * index for index in range(40)]
    bench.store.write(bench.row(model, name), {"original": windows, "quantized": [one + lost for one in windows]})


def test_a_contrast_of_sizes_is_the_difference_of_what_was_lost(tmp_path: Path) -> None:
    bench = findings.Bench(rows.Store(tmp_path), {"llama-64": "a/llama-64", "llama-128": "a/llama-128"})
    test = next(
        one for claim in claims.CLAIMS for one in claim.tests if one.sizes and one.rows == {"w4a16-g64"} and
        claim.finding.startswith("4-bit")
    )  # fmt: skip
    models = {"small": "llama-64", "large": "llama-128"}
    assert bench.contrast(test, models) is None
    keep(bench, "llama-64", "w4a16-g64", 4.0, 0.05)
    keep(bench, "llama-128", "w4a16-g64", 3.0, 0.02)
    found = bench.contrast(test, models)
    assert found is not None and found.value == pytest.approx(0.03)
    assert findings.judged(found, test.bound) == "held"


def test_a_row_that_changes_is_another_row(tmp_path: Path) -> None:
    store = rows.Store(tmp_path)
    row = rows.Row("demo", "one", rows.group("w4a16-g64"), rows.SMALL)
    store.write(row, {"x": 1})
    assert store.read(row) is not None
    assert store.read(rows.Row("demo", "one", rows.group("w4a16-g32"), rows.SMALL)) is None
    assert store.read(rows.Row("demo", "one", row.quantization, rows.LARGE)) is None


def test_a_table_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- it -->\nold\n<!-- end of it -->\nafter\n")
    for text in ("new", "newer"):
        rows.write_below(page, "it", text)
    assert page.read_text() == "before\n<!-- it -->\n\nnewer\n\n<!-- end of it -->\nafter\n"
