"""A run's tasks, texts and timing go through the layers that keep their codes; the report says so and why."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton, local_path
from quantrecipe.recipe import Perplexity
from quantrecipe.runner.continuations import continuations
from quantrecipe.runner.evaluate import evaluation_windows, score
from quantrecipe.runner.pipeline import run
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.quantized import open_dequantized
from quantrecipe.runner.scorers import Streamed
from quantrecipe.runner.served import Served
from quantrecipe.runner.serving import Service, serve, stream
from quantrecipe.runner.tokens import load_tokenizer
from tests.native_jobs import quantize, tokens
from tests.runner_models import make_workplace, recipe


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("evaluation"))


def test_the_report_says_how_the_quantized_side_was_computed(workplace: Path) -> None:
    found = run(recipe(workplace, gates={"min_tokens_per_second_ratio": 0.01}))
    first, *rows = found.results["runtime"]
    assert first["path"] == "one block in memory at a time, its layers as codes"
    assert {row["what"] for row in rows} == {"losses, tasks, texts, speed"}
    assert sum(row["layers"] for row in rows) == 21
    for row in rows:
        assert (row["path"], row["why"]) == ("weight-only", "4-bit integer weights, inputs in float32")
        assert row["scheme"] == "w4a16-g32"
        assert row["kernels"][0] | {"rows": 1, "kernel": "compiled loop"} == row["kernels"][0]
        assert all(step["why"] for step in row["kernels"])
    assert {tuple(row["shape"]) for row in rows} == {(64, 64), (32, 64), (128, 64), (64, 128)}
    assert json.loads((workplace / "out" / "results.json").read_text())["runtime"] == found.results["runtime"]
    report = (workplace / "out" / "report.md").read_text()
    assert "| Quantized, losses, tasks, texts, speed | 21 layers weight-only: 4-bit integer weights" in report
    assert "| Quantized, losses | one block in memory at a time" in report
    assert "| Layers | Scheme | Shape | M = 1 | M = 8 | M = 2048 |\n|--:|---|---|---|---|---|\n" in report
    assert "w4a16-g32 | 128 x 64 | compiled loop |" in report


def test_texts_are_those_of_the_plain_way(workplace: Path, tmp_path: Path) -> None:
    model = workplace / "model"
    quantize(model, tmp_path, {"main": {"scheme": "w4a16-g32", "method": "rtn"}})
    given: Any = SimpleNamespace(tokens=tokens(4, 40, seed=5))  # continuations look at nothing else
    original = Streamed(Skeleton(ModelFolder.open(model)), "cpu")
    streamed = Streamed(open_dequantized(tmp_path, torch.float32)[1], "cpu", torch.float32)
    served = Served(lambda: serve(tmp_path, Service(dtype=torch.float32)))

    class Words:
        def decode(self, ids: torch.Tensor, skip_special_tokens: bool) -> str:
            return " ".join(str(int(one)) for one in ids)

    plain, codes = (continuations(original, one, given, Words(), 4) for one in (streamed, served.scorer(streamed)))
    assert plain == codes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_are_those_of_dequantized_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    """The same weights to the last bit: the order of a sum differs, so a few roundings of the type."""
    quantize(local_path("demo"), tmp_path, {"main": {"scheme": "w4a16-g64", "method": "rtn"}})
    given = evaluation_windows(Perplexity(sequence_length=128, windows=8), load_tokenizer(local_path("demo")), 128)
    original = Streamed(Skeleton(ModelFolder.open(local_path("demo"))), "cpu", dtype)
    plain = Streamed(open_dequantized(tmp_path, dtype)[1], "cpu", dtype)
    sides = (plain, stream(tmp_path, Service(dtype=dtype)))
    one, other = (score(original, side, given.tokens, Quiet()) for side in sides)
    step = torch.finfo(dtype).eps
    assert one.kl is not None and other.kl is not None
    torch.testing.assert_close(other.quantized, one.quantized, rtol=2 * step, atol=0)
    torch.testing.assert_close(other.kl, one.kl, rtol=100 * step, atol=step)
    assert other.agreement is not None
    torch.testing.assert_close(other.agreement, one.agreement, rtol=0, atol=0 if dtype == torch.float32 else 0.02)
