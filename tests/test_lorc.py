"""LoRC: the low-rank error, its adapter in peft's hands, and what counts as its cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from quantrecipe.errors import BackendError, DamageError
from quantrecipe.modeling.adapter import read_adapter
from quantrecipe.modeling.folder import sha256_file
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.plugins.native.compensation import low_rank
from quantrecipe.plugins.native.compensation.lorc import lorc, on_eight_bits
from quantrecipe.plugins.native.load import load
from tests.native_jobs import load_with_transformers
from tests.test_transforms_runs import job_with

LORC = {"compensation": {"name": "lorc", "rank": 4}}


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 40), st.integers(5, 40), st.integers(1, 4), st.integers(0, 100))
def test_the_factors_are_the_best_of_their_rank(rows: int, columns: int, rank: int, seed: int) -> None:
    E = np.random.default_rng(seed).normal(size=(rows, columns))
    factors = lorc(torch.tensor(E, dtype=torch.float32), rank)
    assert factors.A.shape == (rank, columns)
    assert factors.B.shape == (rows, rank)
    U, S, Vt = np.linalg.svd(E)
    best = (U[:, :rank] * S[:rank]) @ Vt[:rank]
    np.testing.assert_allclose(factors.B.double() @ factors.A.double(), best, atol=1e-4 * S[0])
    np.testing.assert_allclose(factors.A.norm(dim=1), factors.B.norm(dim=0), rtol=1e-4)  # S^(1/2) on either side


def test_large_matrices_come_close_to_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    E = torch.randn(300, 200, generator=torch.Generator().manual_seed(0))  # as flat a spectrum as an error has
    S = torch.linalg.svdvals(E)
    monkeypatch.setattr(low_rank, "EXACT", 64)
    factors = lorc(E, 16)
    left = float((E - factors.B @ factors.A).square().sum())
    assert left < 1.01 * float(S[16:].square().sum())


def test_eight_bits_a_factor_are_close() -> None:
    factors = lorc(torch.randn(64, 48, generator=torch.Generator().manual_seed(0)), 8)
    rounded = on_eight_bits(factors)
    product = factors.B @ factors.A
    assert float((rounded.B @ rounded.A - product).norm() / product.norm()) < 0.02
    assert len(torch.unique(rounded.A[0])) <= 255


@pytest.mark.parametrize("scheme", [{"scheme": "w3a16-g32", "method": "gptq"}, "w4a8-g32"])
@torch.inference_mode()
def test_peft_computes_what_was_meant(scheme: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    checkpoint = NativeBackend().quantize(job_with(tmp_path, "llama", scheme, [], **LORC))
    model = load_with_transformers(checkpoint.path)
    bare = model(tokens_of(checkpoint)).logits
    adapted = peft.PeftModel.from_pretrained(model, str(checkpoint.path / "adapter")).eval()
    logits = adapted(tokens_of(checkpoint)).logits
    scale = float(checkpoint.witness_logits.abs().max())
    assert float((logits - checkpoint.witness_logits).abs().max()) < 1e-4 * scale
    assert float((bare - checkpoint.witness_logits).abs().max()) > 1e-2 * scale


def tokens_of(checkpoint: Any) -> torch.Tensor:
    from tests.native_jobs import tokens

    assert checkpoint.witness_logits.shape[:2] == (2, 24)
    return tokens(2, 24, seed=2)


@torch.inference_mode()
def test_it_composes_and_its_bytes_count(tmp_path: Path) -> None:
    scheme = {"scheme": "w3a16-g32", "method": "gptq"}
    plain = NativeBackend().quantize(job_with(tmp_path / "plain", "opt", scheme, ["awq"]))
    with_lorc = NativeBackend().quantize(job_with(tmp_path / "lorc", "opt", scheme, ["awq"], **LORC))
    for before, after in zip(plain.layers, with_lorc.layers, strict=True):
        assert after.bytes - before.bytes == 4 * 4 * (after.rows + after.columns)  # rank 4, fp32
    assert with_lorc.layers[0].relative_error < plain.layers[0].relative_error
    logits = load(with_lorc.path, "cpu")(tokens_of(with_lorc)).logits
    torch.testing.assert_close(logits, with_lorc.witness_logits, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_the_files_are_those_that_loaders_of_lora_expect(tmp_path: Path) -> None:
    checkpoint = NativeBackend().quantize(job_with(tmp_path, "llama", "w3a16-g32", [], **LORC))
    config = json.loads((checkpoint.path / "adapter" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 4
    assert (config["peft_type"], config["bias"], config["modules_to_save"]) == ("LORA", "none", None)
    tensors = load_file(checkpoint.path / "adapter" / "adapter_model.safetensors")
    for name in tensors:  # vLLM's parse_fine_tuned_lora_name
        parts = name.split(".")
        assert parts[:2] == ["base_model", "model"]
        assert parts[-1] == "weight"
        assert parts[-2] in ("lora_A", "lora_B")
        assert ".".join(parts[2:-2]) in config["target_modules"]


def test_damaged_adapters_are_told(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    file.write_bytes(b"no tensors")
    with pytest.raises(DamageError, match="cannot be read"):
        read_adapter(tmp_path)
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(2, 3)}, file)
    with pytest.raises(DamageError, match="belong together"):
        read_adapter(tmp_path)


def test_a_rank_that_is_not_low_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no low rank"):
        NativeBackend().quantize(
            job_with(tmp_path, "llama", "w3a16-g32", [], compensation={"name": "lorc", "rank": 40})
        )


@pytest.mark.slow
def test_qrun_measures_and_verifies_with_the_adapter(tmp_path: Path) -> None:
    from quantrecipe.recipe import Recipe
    from quantrecipe.runner.integrity import verify_folder
    from quantrecipe.runner.pipeline import run
    from tests.test_transforms_runs import recipe_with

    data = recipe_with("w2a16-g64", [], compensation={"name": "lorc", "rank": 32}, format="compressed-tensors")
    data["evaluation"] = {"perplexity": {"sequence_length": 128, "windows": 4}}
    result = run(Recipe.model_validate(data), output=tmp_path / "out")
    without = run(
        Recipe.model_validate(recipe_with("w2a16-g64", []) | {"evaluation": data["evaluation"]}),
        output=tmp_path / "bare",
    )
    assert result.measures
    assert without.measures
    assert result.measures.quantized_perplexity < 0.9 * without.measures.quantized_perplexity
    assert result.results["size"]["bits_per_weight"] > without.results["size"]["bits_per_weight"]
    assert result.results["verified"]["adapter"] == 56
    file = tmp_path / "out" / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * 2}, file, metadata={"format": "pt"})
    assert any("adapter_model.safetensors has changed" in one for one in verify_folder(tmp_path / "out").faults)
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    record["outputs"]["adapter/adapter_model.safetensors"] = sha256_file(file)
    (tmp_path / "out" / "provenance.json").write_text(json.dumps(record))
    assert verify_folder(tmp_path / "out").faults == [
        f"the adapter's {name} reads back otherwise than it was written"
    ]
