"""Each gate passes, fails or stays unsure by its interval; what was not measured never passes."""

from __future__ import annotations

from typing import Any

import pytest

from quantrecipe.recipe import Gates
from quantrecipe.runner.evaluate import Convention, Measures
from quantrecipe.runner.gates import Evidence, exit_code, judge
from quantrecipe.runner.intervals import Interval

CONVENTION = Convention("builtin", 32, 50, 50, 1550, 5000, "<s>", "none", "all", "float32", "cpu")


def _measures(low: float, high: float) -> Measures:
    middle = Interval((low + high) / 2, low, high, 40)
    return Measures(CONVENTION, 20.0, 21.0, middle, middle, middle, 1.0, 1.1)


@pytest.mark.parametrize(
    ("gates", "low", "high", "expected"),
    [
        ({"max_perplexity_increase": "1%"}, 0.001, 0.009, "pass"),
        ({"max_perplexity_increase": "1%"}, 0.011, 0.02, "fail"),
        ({"max_perplexity_increase": "1%"}, 0.005, 0.02, "unsure"),
        ({"max_perplexity_increase": 0.2}, 0.001, 0.009, "pass"),  # absolute: 0.2 of 20 is 1 %
        ({"max_perplexity_increase": 0.2}, 0.011, 0.02, "fail"),
        ({"max_kl": 0.01}, 0.001, 0.01, "pass"),
        ({"max_kl": 0.01}, 0.0101, 0.02, "fail"),
        ({"min_top1_agreement": 0.9}, 0.9, 0.95, "pass"),
        ({"min_top1_agreement": 0.9}, 0.8, 0.89, "fail"),
        ({"min_top1_agreement": 0.9}, 0.8, 0.95, "unsure"),
    ],
)
def test_measured_gates(gates: dict[str, Any], low: float, high: float, expected: str) -> None:
    (result,) = judge(Gates.model_validate(gates), Evidence(_measures(low, high), None, None, None))
    assert result.outcome == expected


@pytest.mark.parametrize(
    ("gates", "evidence", "expected"),
    [
        ({"max_size": "1kB"}, {"file_bytes": 1000}, "pass"),
        ({"max_size": "1kB"}, {"file_bytes": 1001}, "fail"),
        ({"max_bits_per_weight": 4.5}, {"bits_per_weight": 4.25}, "pass"),
        ({"max_peak_memory": "1MB"}, {"peak_memory": 2_000_000}, "fail"),
    ],
)
def test_exact_gates(gates: dict[str, Any], evidence: dict[str, Any], expected: str) -> None:
    known: dict[str, Any] = {"measures": None, "file_bytes": None, "bits_per_weight": None, "peak_memory": None}
    (result,) = judge(Gates.model_validate(gates), Evidence(**known | evidence))
    assert result.outcome == expected


def test_missing_evidence_is_never_a_pass() -> None:
    gates = Gates.model_validate(
        {"max_perplexity_increase": 1, "max_kl": 1, "min_top1_agreement": 0.1, "max_size": "1TB",
         "max_bits_per_weight": 99, "max_peak_memory": "1TB"}
    )  # fmt: skip
    results = judge(gates, Evidence(None, None, None, None))
    assert [result.outcome for result in results] == ["unsure"] * 6
    assert exit_code(results) == 2


def test_a_failure_outweighs_doubt() -> None:
    gates = Gates.model_validate({"max_kl": 1, "max_size": "1kB"})
    assert exit_code(judge(gates, Evidence(None, 2000, None, None))) == 1
    assert exit_code(()) == 0
