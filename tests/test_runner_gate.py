"""``qrun gate`` on checkpoints that other tools wrote: the loss is that of the weights that their tensors mean."""

from __future__ import annotations

import json
from pathlib import Path

import foreign
import pytest
import torch
from runner_models import make_workplace, recipe
from transformers import AutoModelForCausalLM, DynamicCache

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


class RoundedCache(DynamicCache):
    """Gives keys and values back as int8 codes times a scale a tensor, by the plain formula; holds nothing."""

    def __init__(self, scales: tuple[float, float]) -> None:
        super().__init__()
        self.scales = scales

    def update(self, key: torch.Tensor, value: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor, ...]:
        pairs = zip((key, value), self.scales, strict=True)
        return tuple((part / scale).round().clamp(-128, 127) * scale for part, scale in pairs)


def _kl(place: Path, weights: dict[str, torch.Tensor], scales: tuple[float, float] | None = None) -> float:
    """By whole models of transformers, in float64; scales: of int8 keys and values in the second."""
    asked = recipe(place).evaluation.perplexity
    assert asked is not None
    tokens = evaluation_windows(asked, load_tokenizer(place / "model"), None).tokens
    first, second = (AutoModelForCausalLM.from_pretrained(place / "model").double().eval() for _ in range(2))
    for name, weight in weights.items():
        second.get_submodule(name).weight.data = weight.double()
    with torch.inference_mode():
        caches = (None, None if scales is None else RoundedCache(scales))
        pairs = zip((first, second), caches, strict=True)
        found = [model(tokens, past_key_values=cache, use_cache=cache is not None).logits for model, cache in pairs]
        one, other = (logits[:, :-1].log_softmax(-1) for logits in found)
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


SCALES = (0.05, 0.03)
INT8_CACHE = {"num_bits": 8, "type": "int", "strategy": "tensor", "symmetric": True, "dynamic": False}


def _with_cache(place: Path, folder: Path, scheme: object, parts: str = "kv") -> dict[str, torch.Tensor]:
    """A checkpoint of fp8 weights that claims a scheme for keys and values, with scales for some of them."""
    stored = foreign.convert("fp8", place / "model", folder)
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    foreign.change_config(folder, quantization_config=config | {"kv_cache_scheme": scheme})

    def add(tensors: foreign.Tensors) -> None:
        blocks = {name.split(".self_attn.")[0] for name in tensors if ".self_attn." in name}
        tensors.update(
            {
                f"{block}.self_attn.{part}_scale": torch.tensor([scale])
                for block in blocks
                for part, scale in zip("kv", SCALES, strict=True)
                if part in parts
            }
        )

    foreign.change_tensors(folder, add)
    return {name: torch.from_numpy(weight.copy()) for name, weight in stored.items()}


def test_a_foreign_cache_is_scored_as_it_says(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = _with_cache(place, tmp_path / "out", INT8_CACHE)
    found = _gated(place, tmp_path / "out", Integrity(tmp_path / "out"), monkeypatch, max_kl=100.0)
    assert found.results["measures"]["kl"]["value"] == pytest.approx(_kl(place, weights, SCALES), rel=2e-2)
    assert found.results["measures"]["kl"]["value"] != pytest.approx(_kl(place, weights), rel=2e-2)
    assert found.results["notes"] == []


@pytest.mark.parametrize(
    ("scheme", "parts", "why"),
    [
        (INT8_CACHE, "k", "3 of 6 scales are missing, such as model.layers.0.self_attn.v_scale"),
        (INT8_CACHE | {"strategy": "channel"}, "kv", "strategy channel is not known"),
        (INT8_CACHE | {"num_bits": 1}, "kv", "this scheme is not known"),
        ("fp8", "kv", "this scheme is not known"),
    ],
)
def test_a_foreign_cache_that_is_not_scored_is_said(  # noqa: PLR0917
    scheme: object, parts: str, why: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = _with_cache(place, tmp_path / "out", scheme, parts)
    found = _gated(place, tmp_path / "out", Integrity(tmp_path / "out"), monkeypatch, max_kl=100.0)
    assert found.results["notes"] == [f"kv_cache_scheme is not scored, keys and values stay as computed: {why}"]
    assert found.results["measures"]["kl"]["value"] == pytest.approx(_kl(place, weights), rel=2e-2)
