"""``qrun gate`` on checkpoints that other tools wrote: the loss is that of the weights that their tensors mean."""

from __future__ import annotations

from pathlib import Path

import foreign
import pytest
import torch
from runner_models import make_workplace, recipe
from transformers import AutoModelForCausalLM

from quantrecipe.runner.checks.report import Integrity
from quantrecipe.runner.evaluate import evaluation_windows
from quantrecipe.runner.gate import Judged, Request, gate
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.tokens import load_tokenizer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("gate"))


def _gated(place: Path, folder: Path, report: Integrity, monkeypatch: pytest.MonkeyPatch, **gates: object) -> Judged:
    """Judged by a recipe; what verifying finds is given, since its own tests are elsewhere."""
    monkeypatch.setattr("quantrecipe.runner.gate.verify_folder", lambda *_: report)
    return gate(Request(folder, recipe(place, gates=gates)), Quiet())


def _kl(place: Path, weights: dict[str, torch.Tensor]) -> float:
    """By whole models of transformers, in float64."""
    asked = recipe(place).evaluation.perplexity
    assert asked is not None
    tokens = evaluation_windows(asked, load_tokenizer(place / "model"), None).tokens
    first, second = (AutoModelForCausalLM.from_pretrained(place / "model").double().eval() for _ in range(2))
    for name, weight in weights.items():
        second.get_submodule(name).weight.data = weight.double()
    with torch.inference_mode():
        one, other = (model(tokens).logits[:, :-1].log_softmax(-1) for model in (first, second))
    return float((one.exp() * (one - other)).sum(-1).mean())


@pytest.mark.parametrize("kind", ["gptq-asym", "awq", "nf4", "fp8"])
def test_foreign_formats_are_measured_as_they_are_stored(
    kind: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = foreign.convert(kind, place / "model", tmp_path / kind)
    found = _gated(place, tmp_path / kind, Integrity(tmp_path / kind), monkeypatch, max_kl=100.0)
    expected = _kl(place, {name: torch.from_numpy(weight.copy()) for name, weight in stored.items()})
    assert found.results["measures"]["kl"]["value"] == pytest.approx(expected, rel=2e-2)
    assert {layer["name"] for layer in found.results["layers"]} == set(stored)
    assert found.exit_code == 0


def test_faults_fail_doubts_are_unsure_and_neither_measures_damage(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign.convert("gptq", place / "model", tmp_path / "out")
    faulty = Integrity(tmp_path / "out", faults=["a.scales holds NaN"])
    found = _gated(place, tmp_path / "out", faulty, monkeypatch, max_kl=100.0)
    assert (found.exit_code, found.results["measures"]) == (1, None)
    assert found.results["gates"][1]["why"] == "not measured: the checkpoint is damaged"
    doubtful = Integrity(tmp_path / "out", suspects=["b differs from the original"])
    found = _gated(place, tmp_path / "out", doubtful, monkeypatch, max_kl=100.0)
    assert (found.exit_code, found.results["gates"][1]["outcome"]) == (2, "pass")
    assert "looks wrong: b differs" in found.results["gates"][0]["why"]
