"""What plugs in between the steps of a block: streams, changed parameters, compensation, whole-block methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quantrecipe.errors import BackendError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.plugins.native import stages
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.plugins.native.layers import quantize_layer
from quantrecipe.plugins.native.linear import get_weight, set_weight
from quantrecipe.plugins.native.qparams import Storage
from quantrecipe.plugins.native.stages import Block, Compensated, Compensation, Side, Transform, Tuning
from quantrecipe.recipe_transforms import OtherCompensation, OtherTransform
from tests import families
from tests.native_jobs import load_with_transformers, make_job

NORM = "input_layernorm.weight"


class Doubling(Transform):
    """Doubles what a norm gives and halves what reads it: changes nothing."""

    name = "doubling"
    inputs: frozenset[Side] = frozenset({"original"})

    def __init__(self, part: Any) -> None:
        self.factor = part.options["factor"]
        self.seen: list[torch.Tensor] = []
        self.targets: list[torch.Tensor] = []

    def outside(self, model: stages.Parameters) -> None:
        norm = model.module.get_parameter("model.norm.weight")
        model.change("model.norm.weight", norm * self.factor)
        model.change("lm_head.weight", model.module.get_parameter("lm_head.weight") / self.factor)

    def apply(self, block: Block) -> None:
        self.seen.append(torch.cat(list(block.inputs["original"])))
        self.targets.append(torch.cat(list(block.targets)))
        block.change(f"{block.name}.{NORM}", block.module.get_parameter(NORM) * self.factor)
        for name, layer in block.layers.items():
            if name.rpartition(".")[2] in ("q_proj", "k_proj", "v_proj"):
                set_weight(layer.module, get_weight(layer.module) / self.factor)

    def config(self) -> dict[str, Any]:
        return {"doubled": True}


class Exact(Compensation):
    """Adds the whole error back."""

    name = "exact"

    def compensate(self, layer: Any, weight: torch.Tensor, hessian: Any) -> Compensated:
        error = weight - get_weight(layer.module)
        set_weight(layer.module, weight)
        return Compensated(weight, {layer.name: error})

    def write(self, folder: Path, beside: Any) -> None:
        (folder / "errors.txt").write_text("\n".join(beside))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[Doubling]:
    made: list[Doubling] = []

    def make(part: Any) -> Doubling:
        made.append(Doubling(part))
        return made[-1]

    monkeypatch.setitem(stages.TRANSFORMS, "doubling", make)
    monkeypatch.setitem(stages.COMPENSATIONS, "exact", lambda part: Exact())
    return made


def job_with(tmp_path: Path, groups: dict[str, Any], **quantization: Any) -> Any:
    model = families.make_model("llama", tmp_path / "model")
    job = make_job(model, tmp_path / "out", groups)
    for key, value in quantization.items():
        setattr(job.recipe.quantization, key, value)
    return job


@torch.inference_mode()
def test_a_transform_sees_the_original_network_and_what_it_changes_is_written(
    tmp_path: Path, registered: list[Doubling]
) -> None:
    job = job_with(
        tmp_path, {"main": "w2a16-g32"}, transforms=[OtherTransform(name="doubling", options={"factor": 2.0})]
    )
    checkpoint = NativeBackend().quantize(job)
    import transformers

    original = transformers.AutoModelForCausalLM.from_pretrained(job.model_path).eval()
    states = original(job.calibration, output_hidden_states=True).hidden_states
    for index in range(3):
        torch.testing.assert_close(registered[0].seen[index], states[index])
    torch.testing.assert_close(registered[0].targets[0], states[1])
    before, after = ModelFolder.open(job.model_path), ModelFolder.open(checkpoint.path)
    for name in (f"model.layers.1.{NORM}", "model.norm.weight"):
        assert torch.equal(after.tensor(name), before.tensor(name) * 2)
    assert torch.equal(after.tensor("lm_head.weight"), before.tensor("lm_head.weight") / 2)
    assert set(checkpoint.details["changed_parameters"]) >= {"model.norm.weight", f"model.layers.0.{NORM}"}
    assert after.config["doubled"]
    logits = load_with_transformers(checkpoint.path)(job.witness).logits
    torch.testing.assert_close(logits, checkpoint.witness_logits, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_transform_gptq_and_compensation_compose(tmp_path: Path, registered: list[Doubling]) -> None:
    groups = {"main": {"scheme": "w2a16-g32", "method": "gptq"}}
    job = job_with(
        tmp_path,
        groups,
        transforms=[OtherTransform(name="doubling", options={"factor": 4.0})],
        compensation=OtherCompensation(name="exact"),
    )
    checkpoint = NativeBackend().quantize(job)
    import transformers

    original = transformers.AutoModelForCausalLM.from_pretrained(job.model_path).eval()
    torch.testing.assert_close(checkpoint.witness_logits, original(job.witness).logits, rtol=1e-4, atol=1e-5)
    named = (checkpoint.path / "errors.txt").read_text().splitlines()
    assert sorted(named) == sorted(one.name for one in checkpoint.layers)


class Together(Tuning):
    """Quantizes the layers of a block in one go, and says what it saw."""

    name = "together"

    def __init__(self) -> None:
        self.errors: list[float] = []

    def tune(self, block: Block, layers: Any, put: Any) -> None:
        for layer in layers:
            put(layer, *quantize_layer(layer, Storage(torch.float32, torch.float32), None, block.note))
        pairs = zip(block.inputs["quantized"], block.targets, strict=True)
        self.errors.append(sum(float((block.run(batch) - target).norm()) for batch, target in pairs))


@torch.inference_mode()
def test_a_whole_block_method_has_both_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = Together()
    monkeypatch.setitem(stages.TUNINGS, "rtn", lambda method: tuning)
    checkpoint = NativeBackend().quantize(job_with(tmp_path, {"main": "w4a16-g32"}))
    assert len(checkpoint.layers) == 21
    assert 0 < tuning.errors[0] < tuning.errors[1] < tuning.errors[2]  # the prefix's error adds up
    monkeypatch.delitem(stages.TUNINGS, "rtn")
    plain = NativeBackend().quantize(job_with(tmp_path / "plain", {"main": "w4a16-g32"}))
    assert [one.digest for one in plain.layers] == [one.digest for one in checkpoint.layers]


@pytest.mark.parametrize(
    ("part", "value"), [("transforms", [OtherTransform(name="x")]), ("compensation", OtherCompensation(name="x"))]
)
def test_unknown_stages_are_refused(part: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no such"):
        NativeBackend().quantize(job_with(tmp_path, {"main": "w4a16-g32"}, **{part: value}))
