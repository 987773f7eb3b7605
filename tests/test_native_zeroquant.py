"""ZeroQuant's distillation: its gradient from the equations, what its two kinds look at, what it never does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quantrecipe.errors import BackendError, RecipeError
from quantrecipe.modeling.plan import PlannedModule
from quantrecipe.modeling.skeleton import LinearInfo
from quantrecipe.plugins.contract import Job
from quantrecipe.plugins.native.activations import Rounding, apply_scheme
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.plugins.native.block import Worker
from quantrecipe.plugins.native.layers import Layer
from quantrecipe.plugins.native.qparams import Storage
from quantrecipe.plugins.native.tuning import zeroquant
from quantrecipe.plugins.native.tuning.student import Student
from quantrecipe.plugins.native.tuning.zeroquant import Pairs, distil, judge, learn
from quantrecipe.recipe import Group
from quantrecipe.recipe_file import parse_recipe
from quantrecipe.recipe_methods import ZqGlobalMethod, ZqLocalMethod
from quantrecipe.schemes import QuantizationArgs
from tests import families
from tests.native_jobs import load_with_transformers, make_job, tokens
from tests.test_native_backend import check_reload

STORAGE = Storage(torch.float32, torch.float32)
TEXT = tokens(160, 32, seed=1)


def layer(weight: torch.Tensor, scheme: str = "w3a16-g16") -> Layer:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight = nn.Parameter(weight.clone(), requires_grad=False)
    group = Group.model_validate({"scheme": scheme, "method": "zq-local"})
    info = LinearInfo("b.x", "Linear", *weight.shape, 0, False, False)
    return Layer.of(PlannedModule(info, "main", group, None), group, module)


def toy(seed: int = 0) -> tuple[Layer, list[torch.Tensor], list[torch.Tensor]]:
    """A layer, hidden states [2, 8, 32], correlated as real ones are, and what the layer makes of them."""
    generator = torch.Generator().manual_seed(seed)
    one = layer(torch.randn(24, 32, generator=generator))
    mixing = torch.randn(32, 32, generator=generator) * torch.linspace(1, 0.02, 32).unsqueeze(1) ** 2
    inputs = [torch.randn(2, 8, 32, generator=generator) @ mixing for _ in range(9)]
    return one, inputs, [one.module(x) for x in inputs]


def nearest(weight: np.ndarray, bits: int, size: int) -> np.ndarray:
    """Symmetric rounding to nearest by its definition: s = max|w| / ((2^b - 1) / 2).

    In float64, but for the ratio: a group's greatest weight lies half-way between two codes.
    """
    groups = weight.reshape(len(weight), -1, size)
    scale = (np.abs(groups).max(-1, keepdims=True) / ((2**bits - 1) / 2)).astype(np.float32)
    groups = groups.astype(np.float32)
    codes = np.clip(np.round(groups / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (codes.astype(np.float64) * scale).reshape(weight.shape)


@torch.no_grad()
def test_the_gradient_is_that_of_the_equations() -> None:
    one, inputs, targets = toy()
    student = Student([one], STORAGE)
    source = iter(zip(inputs, targets, strict=True))
    learn(student, source, one.module, windows=3, start=0.5)
    W = one.module.weight.double().numpy()
    W_hat, expected = nearest(W, 3, 16), np.zeros_like(W)
    for x, t in list(zip(inputs, targets, strict=True))[:2]:  # 3 windows: two batches of 2
        X, T = x.double().reshape(-1, 32).numpy(), t.double().reshape(-1, 24).numpy()
        expected += 2 / 0.5 * (X @ W_hat.T - T).T @ X  # d sum (X W_hat^T - T)^2 / dW_hat, and dW_hat / dW = 1
    np.testing.assert_allclose(student.weights["b.x"].grad, expected, rtol=2e-4, atol=1e-3)


@torch.no_grad()
def test_gradients_pass_rounded_inputs_straight_through() -> None:
    generator = torch.Generator().manual_seed(0)
    module, x = nn.Linear(8, 4, bias=False), torch.randn(3, 8, generator=generator).requires_grad_()
    handle = apply_scheme(module, Rounding(QuantizationArgs(num_bits=4, strategy="token", dynamic=True)))
    with torch.enable_grad():
        y = module(x)
        y.square().sum().backward()
    handle.remove()
    rounded = Rounding(QuantizationArgs(num_bits=4, strategy="token", dynamic=True)).apply(x.detach())
    assert not torch.equal(rounded, x)
    torch.testing.assert_close(y.detach(), rounded @ module.weight.T)
    torch.testing.assert_close(x.grad, 2 * (rounded @ module.weight.T) @ module.weight)


@pytest.mark.parametrize("method", ["zq-local", "zq-global"])
@torch.no_grad()
def test_it_does_better_than_its_start_on_what_it_did_not_learn_from(method: Any) -> None:
    one, inputs, targets = toy()
    kinds = {"zq-local": ZqLocalMethod, "zq-global": ZqGlobalMethod}
    student, pairs = Student([one], STORAGE), Pairs(inputs, targets, "b", 0)
    found = distil(student, pairs, one.module, kinds[method](name=method, steps=60, learning_rate=0.05))
    assert found.error < 0.8 * found.start
    assert judge(student, found.matrices, pairs, one.module) == found.error
    assert "weight" not in one.module.__dict__


@torch.no_grad()
def test_it_is_never_worse_than_its_start() -> None:
    one, inputs, targets = toy()
    student, pairs = Student([one], STORAGE), Pairs(inputs, targets, "b", 0)
    found = distil(student, pairs, one.module, ZqLocalMethod(name="zq-local", steps=30, learning_rate=10))
    assert found.error == found.start  # such steps only spoil it; it stops early and keeps the start
    reference = nearest(one.module.weight.double().numpy(), 3, 16)
    np.testing.assert_allclose(student.served("b.x", found.matrices["b.x"]), reference, rtol=1e-5, atol=1e-6)


def job_for(root: Path, name: str, group: dict[str, Any], **more: Any) -> Job:
    model = root / "model"
    if not model.exists():
        families.make_model("llama", model)
    form = more.pop("form", "compressed-tensors")
    return dataclasses.replace(make_job(model, root / name / "out", {"main": group}, form, calibration=TEXT), **more)


def zq(kind: str, scheme: Any = "w3a16-g32", **options: Any) -> dict[str, Any]:
    numbers = {"scheme": scheme} if isinstance(scheme, str) else scheme
    return {**numbers, "method": {"name": kind, "steps": 6, "learning_rate": 0.1, **options}}


@pytest.mark.parametrize("kind", ["zq-local", "zq-global"])
def test_local_sees_the_original_network_and_global_the_quantized_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    class Watched(Pairs):
        def __init__(self, inputs: Any, targets: Any, name: str, seed: int) -> None:
            seen.append((torch.cat(list(inputs)), torch.cat(list(targets))))
            super().__init__(inputs, targets, name, seed)

    monkeypatch.setattr(zeroquant, "Pairs", Watched)
    job = job_for(tmp_path, "run", zq(kind))
    checkpoint = NativeBackend().quantize(job)
    import transformers

    original = transformers.AutoModelForCausalLM.from_pretrained(job.model_path).eval()
    fed = original if kind == "zq-local" else load_with_transformers(checkpoint.path)
    with torch.no_grad():
        wanted = fed(TEXT, output_hidden_states=True).hidden_states
        targets = original(TEXT, output_hidden_states=True).hidden_states
    for index, (inputs, target) in enumerate(seen):
        torch.testing.assert_close(inputs, wanted[index], rtol=1e-3, atol=1e-5)
        if index + 1 < len(seen):  # transformers gives the last one behind the final norm
            torch.testing.assert_close(target, targets[index + 1], rtol=1e-3, atol=1e-5)
    assert len(seen) == 3


STATIC = {
    "weights": {"num_bits": 8, "strategy": "channel"},
    "input_activations": {"num_bits": 8, "strategy": "tensor"},
}
NUMBERS: dict[str, Any] = {
    "asymmetric": "w2a16-g32-asym", "inputs too": "w4a8-g32", "static inputs": STATIC, "fp8": "fp8",
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
@torch.inference_mode()
def test_transformers_reads_back_what_was_learned(name: str, tmp_path: Path) -> None:
    checkpoint = NativeBackend().quantize(job_for(tmp_path, "run", zq("zq-global", NUMBERS[name])))
    check_reload(load_with_transformers(checkpoint.path), checkpoint, tolerance=2e-4)
    assert all("rounding to nearest" in str(record.note) for record in checkpoint.layers)


def test_nf4_and_a_compensation_compose_with_it(tmp_path: Path) -> None:
    job = job_for(tmp_path, "run", zq("zq-local", "nf4"), form="bitsandbytes")
    lorc = parse_recipe(
        "model: {id: demo}\nquantization: {config_groups: {main: w4a16}, compensation: {name: lorc, rank: 4}}"
    )
    job.recipe.quantization.compensation = lorc.quantization.compensation
    checkpoint = NativeBackend().quantize(job)
    assert len(checkpoint.details["adapter"]) == 2 * len(checkpoint.layers)
    assert all("rank 4" in str(record.note) for record in checkpoint.layers)


def test_a_stopped_run_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = zq("zq-global", "w4a8-g32")
    whole = NativeBackend().quantize(job_for(tmp_path, "whole", group, scratch=tmp_path / "a"))
    job = job_for(tmp_path, "stopped", group, scratch=tmp_path / "b", spill=True)
    real = Worker.carry_out

    def stop(self: Worker, block: Any, behind: Any) -> Any:
        if block.index == 2:
            raise KeyboardInterrupt
        return real(self, block, behind)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Worker, "carry_out", stop)
        NativeBackend().quantize(job)
    again = NativeBackend().quantize(job)
    for path in whole.path.iterdir():
        assert path.read_bytes() == (again.path / path.name).read_bytes(), path.name
    other = NativeBackend().quantize(job_for(tmp_path, "seed", zq("zq-global", "w4a8-g32", seed=1)))
    assert other.layers[-1].digest != whole.layers[-1].digest


def test_too_little_text_and_unlike_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"choose by another.*at least 2 of 2,048"):
        NativeBackend().quantize(job_for(tmp_path, "run", zq("zq-local"), calibration=TEXT[:64]))
    job = job_for(tmp_path, "two", zq("zq-local"))
    groups = {"main": zq("zq-local"), "x": {**zq("zq-local", seed=2), "targets": ["re:.*down_proj"]}}
    with pytest.raises(BackendError, match="unlike options"):
        NativeBackend().quantize(make_job(job.model_path, tmp_path / "out", groups, calibration=TEXT))
    with pytest.raises(RecipeError, match="learning_rate"):
        parse_recipe(
            "model: {id: demo}\nquantization:\n  config_groups:\n"
            "    main: {scheme: w4a16, method: {name: zq-local, learning_rate: 0}}\n"
        )
