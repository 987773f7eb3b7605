"""Training: rounding that gradients pass, the four precisions, what is written, and going on after a kill."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quantrecipe.errors import BackendError, RecipeError
from quantrecipe.modeling.adapter import ADAPTER
from quantrecipe.modeling.digest import digest
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import make_plan
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.contract import Job
from quantrecipe.plugins.manager import backend
from quantrecipe.plugins.training import states
from quantrecipe.plugins.training.frozen import FrozenLinear
from quantrecipe.plugins.training.models import Subject
from quantrecipe.plugins.training.objective import divergence_from, next_token
from quantrecipe.plugins.training.precision import NUMBERS
from quantrecipe.plugins.training.qat import Qat
from quantrecipe.plugins.training.text import Text
from quantrecipe.plugins.training.trainer import Trainer, share
from quantrecipe.recipe_file import parse_recipe
from quantrecipe.recipe_training import QatTraining
from quantrecipe.runner.capability import faults_of
from tests import families
from tests.native_jobs import load_with_transformers, make_job, tokens
from tests.test_native_backend import check_reload

TEXT = tokens(24, 32, seed=1)
PRECISIONS = ["fp32", "bf16", "fp16", "mixed"]


def training(given: str, scheme: str = "w4a16-g32") -> Any:
    text = f"model: {{id: demo}}\nquantization:\n  config_groups: {{main: {scheme}}}\n  training: {given}\n"
    return parse_recipe(text).quantization.training


def job_for(root: Path, name: str, given: str, scheme: str = "w4a16-g32", **more: Any) -> Job:
    model = root / "model"
    if not model.exists():
        families.make_model(more.pop("family", "llama-tied"), model, more.pop("dtype", torch.float32))
    form = more.pop("form", "compressed-tensors")
    job = make_job(model, root / name / "out", {"main": scheme}, form, calibration=TEXT)
    job.recipe.quantization.training = training(given, scheme)
    plan = make_plan(job.recipe, Skeleton(ModelFolder.open(model)).linears())
    return dataclasses.replace(job, plan=plan, **more)


def test_the_model_in_training_computes_with_what_the_checkpoint_will_hold(tmp_path: Path) -> None:
    """Before any step: logits of the fake-quantized model are those of transformers on the written checkpoint."""
    job = job_for(tmp_path, "run", "{name: qat, precision: fp32, steps: 1, learning_rate: 1.0e-12}", "w3a8-g32")
    checkpoint = backend("training").quantize(job)
    loaded = load_with_transformers(checkpoint.path)
    way = Qat(Subject.of(job), torch.float32)
    with torch.no_grad(), way.computing():
        logits = way.model(job.witness).logits
        for record in checkpoint.layers:
            assert torch.equal(way.model.get_submodule(record.name).weight, loaded.get_submodule(record.name).weight)
    with torch.no_grad():
        torch.testing.assert_close(logits, loaded(job.witness).logits, rtol=1e-3, atol=1e-4)


def test_the_gradient_of_a_rounded_weight_reaches_the_weight(tmp_path: Path) -> None:
    """W gets d loss / d W_hat: along it, and across it, a model that holds W_hat changes as much as it says."""
    way = Qat(Subject.of(job_for(tmp_path, "run", "qat", "w3a16-g32")), torch.float32)
    name = "model.layers.1.mlp.down_proj"
    with way.computing():
        next_token(way.model(TEXT).logits, TEXT).backward()
        rounded = {one.name: one.module.weight.detach().clone() for one in way.layers}
    gradient = way.learned[f"{name}.weight"].grad
    assert gradient is not None
    half = torch.arange(gradient.shape[1]) % 2 == 0
    with torch.no_grad():
        for layer in way.layers:
            layer.module._parameters["weight"].copy_(rounded[layer.name])
        weight = way.model.get_submodule(name).weight
        for direction in (gradient / gradient.norm(), gradient.sign() * half / gradient.numel() ** 0.5):
            losses = []
            for step in (0.05, -0.05):
                weight.copy_(rounded[name] + step * direction)
                losses.append(float(next_token(way.model(TEXT).logits, TEXT)))
            assert (losses[0] - losses[1]) / 0.1 == pytest.approx(float((gradient * direction).sum()), rel=0.02)


def test_divergence_is_that_of_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    P, Q = (torch.randn(2, 5, 7, generator=generator) for _ in range(2))

    class Original:
        def __call__(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
            return type("Output", (), {"logits": P})

    found = divergence_from(Original())(Q, torch.zeros(2, 5, dtype=torch.int64))
    p, q = (np.exp(one.double().numpy()) / np.exp(one.double().numpy()).sum(-1, keepdims=True) for one in (P, Q))
    assert float(found) == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_learns(precision: Any, tmp_path: Path) -> None:
    """On windows that it sees again and again; steps are taken on fp32 weights, so that small ones count."""
    job = job_for(tmp_path, "run", f"{{name: qat, precision: {precision}}}")
    numbers = NUMBERS[precision]
    way, text = Qat(Subject.of(job), numbers.weights), Text(TEXT[:3], 0)
    trainer = Trainer(way.learned, numbers, steps=12, rate=2e-3, device="cpu")

    def loss(step: int) -> torch.Tensor:
        with way.computing():
            given = text.batch(step, 2)
            return next_token(way.model(given).logits, given)

    losses = [trainer.step(step, lambda step=step: loss(step)) for step in range(12)]
    assert losses[-1] < losses[0] - 0.3
    assert {one.dtype for one in trainer.masters.values()} == {torch.float32}
    assert {one.dtype for one in way.learned.values()} == {numbers.weights}


def test_a_step_that_overflows_fp16_is_left_out_and_the_scale_falls() -> None:
    parameter = nn.Parameter(torch.ones(4, dtype=torch.float16))
    trainer = Trainer({"x": parameter}, NUMBERS["fp16"], steps=10, rate=0.1, device="cpu")
    trainer.step(0, lambda: (parameter * 2).sum().float() * 1e4)
    assert torch.equal(parameter.detach(), torch.ones(4, dtype=torch.float16))
    for step in range(1, 10):
        trainer.step(step, lambda: (parameter * 2).sum().float() * 1e-6)  # 2e-6 vanishes in fp16 unless it is scaled
    assert float(parameter[0]) < 1
    assert trainer.state()[1]["scale"] < 2.0**16


@pytest.mark.parametrize(("given", "scheme"), [("qat", "w4a8-g32"), ("{name: qat, precision: fp16}", "w8a8")])
@torch.inference_mode()
def test_transformers_reads_back_what_qat_learned(given: str, scheme: str, tmp_path: Path) -> None:
    checkpoint = backend("training").quantize(job := job_for(tmp_path, "run", _short(given), scheme))
    loaded = load_with_transformers(checkpoint.path)
    check_reload(loaded, checkpoint, tolerance=2e-4)
    changed = checkpoint.details["changed_parameters"]
    assert set(changed) == {"model.embed_tokens.weight", "model.norm.weight"} | {
        f"model.layers.{i}.{name}_layernorm.weight" for i in range(3) for name in ("input", "post_attention")
    }
    for name, known in changed.items():
        assert digest(loaded.get_parameter(name)) == known
    before = ModelFolder.open(job.model_path).tensor("model.embed_tokens.weight")
    assert not torch.equal(loaded.get_parameter("model.embed_tokens.weight"), before)
    assert "loss on held-back windows" in checkpoint.notes[0]


def _short(given: str) -> str:
    name, _, rest = given.strip("{}").removeprefix("name: ").partition(",")
    more = f", {rest}" if rest else ""
    return f"{{name: {name}, steps: 4, batch: 2, learning_rate: 1.0e-3{more}}}"


def test_peft_reads_the_adapter_that_was_learned_on_rounded_weights(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    given = "{name: qlora, precision: fp32, rank: 4, steps: 12, batch: 4, learning_rate: 1.0e-2}"
    checkpoint = backend("training").quantize(job := job_for(tmp_path, "run", given))
    frozen = load_with_transformers(checkpoint.path)
    adapted = peft.PeftModel.from_pretrained(load_with_transformers(checkpoint.path), str(checkpoint.path / ADAPTER))
    with torch.no_grad():
        before, after = frozen(job.witness).logits, adapted(job.witness).logits
        assert checkpoint.witness_logits is not None
        torch.testing.assert_close(after, checkpoint.witness_logits, rtol=1e-3, atol=1e-4)
        assert float((after - before).abs().max()) > 1e-3
        losses = [float(next_token(model(TEXT[:16]).logits, TEXT[:16])) for model in (frozen, adapted)]
    assert losses[1] < losses[0]
    plain = dataclasses.replace(job, output_path=tmp_path / "plain")
    plain.output_path.mkdir()
    native = backend("native").quantize(plain)
    assert [one.digest for one in native.layers] == [one.digest for one in checkpoint.layers]
    assert sum(one.bytes for one in checkpoint.layers) - sum(one.bytes for one in native.layers) == sum(
        4 * 4 * (one.rows + one.columns) for one in native.layers
    )


def test_a_merged_adapter_is_rounded_into_the_weights(tmp_path: Path) -> None:
    given = "{name: qlora, precision: fp32, rank: 4, steps: 4, learning_rate: 1.0e-2, adapter: merged}"
    checkpoint = backend("training").quantize(job_for(tmp_path, "run", given, "w8a16"))
    assert not (checkpoint.path / ADAPTER).exists()
    check_reload(load_with_transformers(checkpoint.path), checkpoint)
    kept = backend("training").quantize(job_for(tmp_path, "kept", given.replace("merged", "kept"), "w8a16"))
    assert kept.witness_logits is not None
    scale = float(kept.witness_logits.abs().max())
    assert float((checkpoint.witness_logits - kept.witness_logits).abs().max()) < 0.03 * scale


def test_a_frozen_layer_computes_as_a_linear_one_and_passes_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(8, 6)
    frozen = FrozenLinear(linear, linear.weight.detach)
    x = torch.randn(2, 3, 8, generator=generator)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.testing.assert_close(frozen(one), linear(other))
    frozen(one).square().sum().backward()
    linear(other).square().sum().backward()
    torch.testing.assert_close(one.grad, other.grad)
    with torch.autocast("cpu", torch.bfloat16):
        assert frozen(x).dtype == torch.bfloat16


@pytest.mark.parametrize("given", ["qat", "{name: qat, precision: fp16}", "qlora"])
def test_a_stopped_training_goes_on_to_the_same_bytes(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "EVERY", 0)
    monkeypatch.setattr(states, "LEAST_SHARE", 0)
    whole = backend("training").quantize(job_for(tmp_path, "whole", _short(given), scratch=tmp_path / "a"))
    job = job_for(tmp_path, "stopped", _short(given), scratch=tmp_path / "b")
    real = Trainer.step

    def stop(self: Trainer, number: int, loss: Any) -> float:
        if number == 2:
            raise KeyboardInterrupt
        return real(self, number, loss)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "step", stop)
        backend("training").quantize(job)
    steps: list[int] = []

    def count(self: Trainer, number: int, loss: Any) -> float:
        steps.append(number)
        return real(self, number, loss)

    monkeypatch.setattr(Trainer, "step", count)
    again = backend("training").quantize(job)
    assert steps == [2, 3]
    for path in sorted(whole.path.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (again.path / path.relative_to(whole.path)).read_bytes(), path.name
    assert torch.equal(again.witness_logits, whole.witness_logits)  # type: ignore[arg-type]
    monkeypatch.setattr(Trainer, "step", None)
    assert backend("training").quantize(job).layers[0].digest == whole.layers[0].digest  # all is learned already


def test_windows_come_once_each_before_any_comes_again() -> None:
    text = Text(torch.arange(20).unsqueeze(1), 3)
    assert len(text.held_back) == 1
    seen = torch.cat([text.batch(step, 4).flatten() for step in range(19)])
    for epoch in seen[:76].view(4, 19):
        assert sorted(epoch.tolist()) == list(range(19))
    assert seen[:19].tolist() != seen[19:38].tolist()
    assert [share(step, 40) for step in (0, 1)] == [0.5, 1.0]
    assert share(39, 40) < 0.03
    with pytest.raises(BackendError, match="at least 2"):
        Text(torch.arange(1).unsqueeze(1), 0)


@pytest.mark.parametrize(
    ("given", "scheme", "said"),
    [
        ("qatt", "w4a16", "known are qat and qlora"),
        ("{name: qat, stepss: 3}", "w4a16", "did you mean 'steps'"),
        ("{name: qlora, rank: 0}", "w4a16", "rank: 0"),
        ("qlora", "w4a8", "rounds inputs: use qat"),
        ("qat", "{scheme: w4a16, method: gptq}", "method 'gptq': use rtn"),
        ("qat\n  transforms: [awq]", "w4a16", "does not go with transforms"),
        ("qat\n  compensation: lorc", "w4a16", "does not go with compensation"),
    ],
)
def test_nonsense_is_refused_by_the_recipe(given: str, scheme: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        training(given, scheme)


def test_backends_say_who_trains() -> None:
    recipe = parse_recipe(
        "model: {id: demo}\nquantization: {config_groups: {main: w4a16}, training: {name: qat, precision: mixed}}"
    )
    trains, native = backend("training").capabilities(), backend("native").capabilities()
    assert not trains.streams
    assert list(faults_of(recipe, trains, "compressed-tensors", "cpu")) == []
    assert list(faults_of(recipe, native, "compressed-tensors", "cpu")) == ["it knows no training 'qat'"]
    recipe.quantization.training = None
    assert "it trains" in next(faults_of(recipe, trains, "compressed-tensors", "cpu"))
    assert isinstance(training("qat"), QatTraining)


def test_experts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="experts are not trained"):
        backend("training").quantize(job_for(tmp_path, "run", "qat", family="mixtral"))
