"""The ten questions: what each answer must hold for a person who knows the papers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from quantrecipe.advisor.cli import cli

QUESTIONS = yaml.safe_load((Path(__file__).parent / "golden" / "questions.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question["ask"])
def test_answer(question: dict[str, Any]) -> None:
    result = CliRunner().invoke(cli, question["arguments"])
    assert result.exit_code == question["exit"], result.output
    assert max(map(len, result.output.splitlines())) <= 100
    flat = " ".join(result.output.split())
    missing = [pattern for pattern in question.get("text", ()) if not re.search(pattern, flat)]
    assert not missing, f"{missing}\n{result.output}"
    assert not [pattern for pattern in question.get("never", ()) if re.search(pattern, flat)]


@pytest.mark.parametrize("question", [q for q in QUESTIONS if q["exit"] == 0], ids=lambda q: q["ask"])
def test_recommendation(question: dict[str, Any]) -> None:
    result = CliRunner().invoke(cli, [*question["arguments"], "--format", "json"])
    answer = json.loads(result.output)
    chosen = answer["recommended"]
    for field in ("scheme", "method", "verdict"):
        assert re.fullmatch(question.get(field, ".*"), chosen[field]), (field, chosen[field])
    assert re.fullmatch(question.get("model", ".*"), chosen["model"])
    assert chosen["kv_bits"] == question.get("kv_bits", chosen["kv_bits"])
    low, high = question.get("within", (-1, 10))
    assert low <= chosen["quality"]["relative_increase"] <= high
    least, most = question.get("total_gb", (0, 1e9))
    assert least <= chosen["memory"]["total_bytes"] / 1e9 <= most
    assert question.get("launch", "") in chosen["recipe"]["launch"]
    for scheme, method, words in question.get("alternatives", ()):
        reasons = [
            a["rejected_because"] for a in answer["alternatives"] if (a["scheme"], a["method"]) == (scheme, method)
        ]
        taken = (scheme, method) == (chosen["scheme"], chosen["method"])  # as soon as a backend carries it out
        assert taken or (reasons and words in reasons[0]), (scheme, method, reasons)
