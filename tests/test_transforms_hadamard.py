"""Hadamard matrices, rotations, and models that compute the same once their residual stream is rotated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantrecipe.errors import BackendError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.plugins.native.transforms.hadamard_matrix import factor_matrix, factors, paley
from quantrecipe.plugins.native.transforms.rotated import rotated
from quantrecipe.plugins.native.transforms.rotation import make_rotation
from tests.native_jobs import load_with_transformers, tokens
from tests.test_native_backend import check_reload
from tests.test_transforms_runs import job_with
from tests.transform_jobs import Uneven


@pytest.mark.parametrize("order", [1, 2, 4, 8, 12, 20, 24, 28, 36, 44, 48, 60, 68, 76, 84, 104, 108, 140])
def test_paley(order: int) -> None:
    matrix = paley(order)
    if order & (order - 1) == 0 and order > 2:
        matrix = factor_matrix(order)
    assert matrix is not None
    H = matrix.double()
    assert torch.equal(H.abs(), torch.ones(order, order, dtype=torch.float64))
    assert torch.equal(H @ H.t(), order * torch.eye(order, dtype=torch.float64))


@pytest.mark.parametrize(
    ("size", "first"),
    [(576, 36), (768, 12), (896, 28), (1536, 12), (2304, 36), (2560, 20), (3584, 28), (5120, 20), (6656, 104)],
)
def test_sizes_of_real_models_have_a_hadamard_matrix(size: int, first: int) -> None:
    found = factors(size)
    assert found is not None
    assert found[0] == first
    assert torch.tensor(found).prod() == size
    assert factors(172) is None  # known, but by neither of Paley's constructions


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([8, 12, 36, 48, 64, 90, 172, 576]), st.booleans(), st.integers(0, 1000))
def test_rotations_are_orthogonal_spread_and_keep_the_mean_if_asked(size: int, keeps_mean: bool, seed: int) -> None:
    rotation = make_rotation(size, keeps_mean, seed)
    Q = rotation.right(torch.eye(size, dtype=torch.float64))
    torch.testing.assert_close(Q @ Q.t(), torch.eye(size, dtype=torch.float64))
    W = torch.randn(size, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(rotation.left(W), Q.t() @ W)
    torch.testing.assert_close(rotation.left(W[:, 0]), Q.t() @ W[:, 0])
    if keeps_mean:
        ones = torch.ones(size, dtype=torch.float64)
        torch.testing.assert_close(ones @ Q, ones)
    if size >= 64:
        assert float(Q.abs().max()) < 0.75  # no channel stays by itself


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("qwen3", "gpt-neox", "falcon", "phi", "phi3")]


@pytest.mark.parametrize("family", ["llama", "llama-tied", "gemma", "opt", "gpt2", *SLOW])
@torch.inference_mode()
def test_the_rotated_model_computes_the_same(family: str, tmp_path: Path) -> None:
    model = Uneven(family, tmp_path)
    before = model.logits()
    model.skeleton.release("")
    skeleton = Skeleton(rotated(model.skeleton, 0))
    skeleton.materialize("", torch.float32)
    after = skeleton.model(tokens(2, 24, seed=2)).logits
    assert float((after - before).abs().max()) < 2e-5 * float(before.abs().max())
    blocks = [name for name in skeleton.folder.names if ".1." in name and "weight" in name]
    blocks = [name for name in blocks if not name.endswith(("q_norm.weight", "k_norm.weight"))]
    assert all(not torch.equal(skeleton.folder.tensor(name), model.skeleton.folder.tensor(name)) for name in blocks)


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("bloom", "word_embeddings_layernorm stands between"),
        ("gemma2", "a norm, is added to the residual stream"),
        ("opt-350m", "project_in"),
        ("mixtral", "goes elsewhere"),
    ],
)
def test_models_that_cannot_be_rotated_are_refused_with_the_reason(family: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=why):
        NativeBackend().quantize(job_with(tmp_path, family, "w8a8", ["hadamard"]))


@pytest.mark.parametrize(
    ("family", "scheme", "transforms"),
    [
        ("llama-tied", {"scheme": "w4a16-g32", "method": "gptq"}, ["hadamard"]),
        ("opt", "w4a8", ["hadamard", "smoothquant"]),
        ("llama", "w4a16-g32", ["hadamard"]),
    ],
)
@torch.inference_mode()
def test_transformers_reads_back_what_was_meant(family: str, scheme: Any, transforms: Any, tmp_path: Path) -> None:
    checkpoint = NativeBackend().quantize(job_with(tmp_path, family, scheme, transforms))
    check_reload(load_with_transformers(checkpoint.path), checkpoint)
    stored = ModelFolder.open(checkpoint.path)
    changed = checkpoint.details["changed_parameters"]
    assert any("embed_tokens" in name for name in changed)
    assert "lm_head.weight" in changed
    assert "lm_head.weight" in stored
    assert not stored.config.get("tie_word_embeddings", False)
