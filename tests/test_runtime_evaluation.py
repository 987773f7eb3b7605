"""A run's tasks, texts and timing go through the layers that keep their codes; the report says so and why."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.runner.continuations import continuations
from quantrecipe.runner.pipeline import run
from quantrecipe.runner.quantized import open_dequantized
from quantrecipe.runner.scorers import Streamed
from quantrecipe.runner.served import Served
from quantrecipe.runner.serving import serve
from tests.native_jobs import quantize, tokens
from tests.runner_models import make_workplace, recipe


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("evaluation"))


def test_the_report_says_how_the_quantized_side_was_computed(workplace: Path) -> None:
    found = run(recipe(workplace, gates={"min_tokens_per_second_ratio": 0.01}))
    rows = {row["what"]: row for row in found.results["runtime"]}
    assert rows["losses"]["path"] == "dequantized, one block at a time"
    assert rows["tasks, texts, speed"] | {"layers": 21} == rows["tasks, texts, speed"]
    assert rows["tasks, texts, speed"]["why"] == "4-bit integer weights, inputs in float32"
    assert json.loads((workplace / "out" / "results.json").read_text())["runtime"] == found.results["runtime"]
    report = (workplace / "out" / "report.md").read_text()
    assert "| Quantized, tasks, texts, speed | 21 layers weight-only: 4-bit integer weights" in report
    assert "| Quantized, losses | dequantized, one block at a time" in report


def test_texts_are_those_of_the_plain_way(workplace: Path, tmp_path: Path) -> None:
    model = workplace / "model"
    quantize(model, tmp_path, {"main": {"scheme": "w4a16-g32", "method": "rtn"}})
    given: Any = SimpleNamespace(tokens=tokens(4, 40, seed=5))  # continuations look at nothing else
    original = Streamed(Skeleton(ModelFolder.open(model)), "cpu")
    streamed = Streamed(open_dequantized(tmp_path, torch.float32)[1], "cpu", torch.float32)
    served = Served(lambda: serve(tmp_path, "cpu", dtype=torch.float32))

    class Words:
        def decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> str:
            return " ".join(str(int(one)) for one in ids)

    plain, codes = (continuations(original, one, given, Words(), 4) for one in (streamed, served.scorer(streamed)))
    assert plain == codes


def test_a_rounded_cache_is_only_timed(workplace: Path) -> None:
    streamed = Streamed(Skeleton(ModelFolder.open(workplace / "model")), "cpu")
    served = Served(lambda: pytest.fail("nothing is to be loaded"), texts=False)
    assert served.scorer(streamed) is streamed
    assert [row["what"] for row in served.rows(streamed)] == ["losses"]
