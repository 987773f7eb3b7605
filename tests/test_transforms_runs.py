"""Transforms through the native backend: what is written is what was computed, and verification knows it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from quantrecipe.errors import QuantRecipeError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.recipe import Recipe
from tests import families
from tests.native_jobs import load_with_transformers, make_job
from tests.test_native_backend import check_reload


def job_with(folder: Path, family: str, scheme: Any, transforms: list[Any], **more: Any) -> Any:
    model = families.make_model(family, folder / "model")
    job = make_job(model, folder / "out", {"main": scheme})
    data = job.recipe.model_dump()
    data["quantization"] |= {"transforms": transforms, **more}
    return dataclasses.replace(job, recipe=Recipe.model_validate(data))


@pytest.mark.parametrize(
    ("family", "scheme", "transforms"),
    [
        ("llama", "w8a8", ["smoothquant"]),
        ("opt", {"scheme": "w4a8-g32", "method": "gptq"}, ["outlier-suppression-plus"]),
        ("bloom", {"scheme": "w3a16-g32", "method": "gptq"}, ["awq"]),
    ],
)
@torch.inference_mode()
def test_transformers_reads_back_what_was_meant(family: str, scheme: Any, transforms: Any, tmp_path: Path) -> None:
    checkpoint = NativeBackend().quantize(job_with(tmp_path, family, scheme, transforms))
    check_reload(load_with_transformers(checkpoint.path), checkpoint)
    changed = checkpoint.details["changed_parameters"]
    assert any("norm" in name for name in changed)
    before, after = ModelFolder.open(tmp_path / "model"), ModelFolder.open(checkpoint.path)
    names = [name for name in changed if name in before.names]
    assert any(not torch.equal(before.tensor(name), after.tensor(name)) for name in names)


STATIC = {
    "weights": {"num_bits": 8, "strategy": "channel"},
    "input_activations": {"num_bits": 8, "strategy": "tensor", "symmetric": False},
}


def recipe_with(scheme: Any, transforms: list[Any], **more: Any) -> dict[str, Any]:
    quantization = {"config_groups": {"main": scheme}, "transforms": transforms, **more}
    return {"model": {"id": "demo"}, "quantization": quantization}


@pytest.mark.parametrize(
    ("scheme", "transforms", "why"),
    [
        ("w4a16-g128", ["smoothquant"], "no group rounds inputs"),
        ("w4a16-g128", ["outlier-suppression-plus"], "no group rounds inputs"),
        ("w8a8", ["smoothquant", "awq"], "set the same scales"),
        ("w8a8", ["smoothquant", "smoothquant"], "listed twice"),
        ("w8a8", ["smoothquant", "hadamard"], "list it first"),
        ("w8a8", ["rptq"], "strategy tensor and dynamic false"),
        (STATIC, ["rptq"], "needs format quantrecipe"),
        ("w8a8", [{"name": "smoothquant", "alpha": 1.5}], "alpha"),
        ("w8a8", [{"name": "smoothquant", "aplha": 0.5}], "aplha"),
    ],
)
def test_senseless_combinations_are_refused_with_the_reason(scheme: Any, transforms: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Recipe.model_validate(recipe_with(scheme, transforms))


def test_names_stand_for_parts_and_plugins_may_bring_their_own() -> None:
    recipe = Recipe.model_validate(recipe_with("w8a8", ["smoothquant", {"name": "mine", "options": {"x": 1}}]))
    first, second = recipe.quantization.transforms
    assert (first.name, second.name) == ("smoothquant", "mine")
    assert Recipe.model_validate(recipe.model_dump()) == recipe


@pytest.mark.slow
def test_qrun_verifies_what_a_transform_rewrote(tmp_path: Path) -> None:
    from quantrecipe.runner.integrity import verify_folder
    from quantrecipe.runner.pipeline import run

    data = recipe_with("w8a8", ["smoothquant"]) | {
        "calibration": {"samples": 4, "sequence_length": 128},
        "evaluation": {"perplexity": {"sequence_length": 128, "windows": 4}},
    }
    result = run(Recipe.model_validate(data), output=tmp_path / "out")
    assert result.results["verified"]["changed"] == 8
    assert verify_folder(tmp_path / "out", "demo").exit_code == 0
    record = tmp_path / "out" / "provenance.json"
    text = record.read_text(encoding="utf-8")
    digest = json.loads(text)["changed"]["model.layers.0.input_layernorm.weight"]
    record.write_text(text.replace(digest, "0" * 64), encoding="utf-8")
    report = verify_folder(tmp_path / "out")
    assert report.faults == ["model.layers.0.input_layernorm.weight reads back otherwise than a transform made it"]


def test_an_unknown_transform_is_named(tmp_path: Path) -> None:
    with pytest.raises(QuantRecipeError, match="no such transform"):
        NativeBackend().quantize(job_with(tmp_path, "llama", "w8a8", ["mine"]))


@pytest.mark.slow
def test_a_rotated_checkpoint_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    from quantrecipe.runner.integrity import verify_folder
    from quantrecipe.runner.pipeline import run

    data = recipe_with("w4a16-g128", ["hadamard"], format="compressed-tensors")
    data["evaluation"] = {"perplexity": {"sequence_length": 128, "windows": 4}}
    run(Recipe.model_validate(data), output=tmp_path / "out")
    report = verify_folder(tmp_path / "out", "demo")
    assert report.faults == []
    assert any("reordered or learned by hadamard" in line for line in report.unchecked)
