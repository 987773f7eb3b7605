"""Outlier channels that the function does not notice: int8 inputs collapse, and who copes with that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import make_plan
from quantrecipe.modeling.skeleton import Skeleton, local_path
from quantrecipe.plugins.contract import Job
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.recipe import Calibration, Perplexity, Recipe
from quantrecipe.runner.calibration import calibration_tokens
from quantrecipe.runner.evaluate import evaluation_windows, score
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.quantized import Rounded
from quantrecipe.runner.scorers import Streamed
from quantrecipe.runner.serving import Service, stream
from tests.native_jobs import Silent
from tools.inject_outliers import inject

STATIC = {"weights": {"num_bits": 8, "strategy": "channel"}, "input_activations": {"num_bits": 8, "symmetric": False}}


def loss(
    model: Path, out: Path, transforms: list[Any], group: Any = "w8a8", form: str = "compressed-tensors"
) -> float:
    """Nats a token that W8A8 with these transforms costs on held-out text."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    quantization = {"config_groups": {"main": group}, "transforms": transforms, "format": form}
    recipe = Recipe.model_validate({"model": {"id": str(model)}, "quantization": quantization})
    skeleton = Skeleton(ModelFolder.open(model))
    plan = make_plan(recipe, skeleton.linears())
    calibration = calibration_tokens(Calibration(samples=16, sequence_length=128), tokenizer, None).tokens
    windows = evaluation_windows(Perplexity(sequence_length=128, windows=12), tokenizer, None).tokens
    out.mkdir(parents=True)
    job = Job(recipe, model, out, plan, calibration, windows[:1, :32], form, "cpu", Silent())
    NativeBackend().quantize(job)
    quantized = stream(out, Service("cpu", Rounded.of(plan), skeleton.dtype))
    scores = score(Streamed(skeleton), quantized, windows, Quiet())
    return float((scores.quantized - scores.original).mean())


@pytest.mark.slow
def test_scales_alone_are_undone_by_those_who_reach_every_place(tmp_path: Path) -> None:
    model = tmp_path / "model"
    assert inject("demo", model) > 50
    plain = loss(model, tmp_path / "plain", [])
    assert plain > 20 * abs(
        loss(local_path("demo"), tmp_path / "before", [])
    )  # what int8 inputs cost without outliers
    for name, recovers, *how in (
        ("smoothquant", True, ["smoothquant"]),
        ("os+", True, ["outlier-suppression-plus"]),
        ("rptq", True, ["rptq"], STATIC, "quantrecipe"),
        ("llm-int8", True, [], {"scheme": "w8a8", "method": "llm-int8"}, "bitsandbytes"),
        ("norms", False, [{"name": "smoothquant", "places": "norms"}]),  # o_proj and down_proj keep theirs
        ("hadamard", False, ["hadamard"]),  # it turns the residual stream, not what is inside heads and the MLP
    ):
        left = loss(model, tmp_path / name, *how)
        assert ((plain - left) / plain >= 0.9) == recovers, (name, plain, left)
