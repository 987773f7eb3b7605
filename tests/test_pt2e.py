"""PyTorch's static and dynamic int8 through torchao's PT2E flow: offered as data, carried out in its environment."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import make_plan
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.manager import backend
from quantrecipe.recipe_file import parse_recipe
from quantrecipe.runner.capability import faults_of
from tests import families
from tests.native_jobs import make_job, tokens

WEIGHTS = {"num_bits": 8, "strategy": "channel"}
INPUTS = {"num_bits": 8, "strategy": "tensor", "symmetric": False}


@pytest.mark.parametrize("dynamic", [False, True])
def test_torchao_offers_a_scale_a_tensor(dynamic: bool) -> None:
    text = f"""
model: {{id: demo}}
quantization:
  backend: torchao
  config_groups: {{main: {{weights: {WEIGHTS}, input_activations: {{num_bits: 8, strategy: tensor,
    dynamic: {str(dynamic).lower()}}}}}}}
"""
    recipe = parse_recipe(text)
    assert list(faults_of(recipe, backend("torchao").capabilities(), "torchao", "cpu")) == []


def test_a_graph_is_judged_by_its_hashes(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"x")
    (tmp_path / "config.json").write_text("{}")
    from quantrecipe.runner import integrity

    report = integrity.Integrity(tmp_path)
    assert integrity._open(tmp_path, object(), report) is None  # type: ignore[arg-type]
    assert not report.faults
    assert "its own library alone" in report.unchecked[0]


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_graph_reloads_and_loses_little(dynamic: bool, tmp_path: Path) -> None:
    torchao = backend("torchao")
    if not torchao.availability().available:
        pytest.skip("torchao's environment is not installed")
    model = families.make_model("llama", tmp_path / "model")
    group: dict[str, Any] = {"weights": WEIGHTS, "input_activations": {**INPUTS, "dynamic": dynamic}}
    job = make_job(model, tmp_path / "out", {"main": group}, "torchao", calibration=tokens(8, 32, seed=1))
    plan = make_plan(job.recipe, Skeleton(ModelFolder.open(model)).linears())
    checkpoint = torchao.quantize(dataclasses.replace(job, plan=plan))
    assert len(checkpoint.layers) == 21
    assert all(0 < layer.relative_error < 0.01 for layer in checkpoint.layers)
    import transformers

    original = transformers.AutoModelForCausalLM.from_pretrained(model).eval()
    loaded = torchao.load(checkpoint.path, "cpu")
    with torch.no_grad():
        for text in (tokens(2, 24, seed=2), tokens(1, 40, seed=3)):
            wanted, found = original(text).logits, loaded(text).logits
            assert float((wanted - found).norm() / wanted.norm()) < 0.05
    loaded.close()  # type: ignore[operator]
