"""SmoothQuant, AWQ and Outlier Suppression+: the papers' formulas, and that the model still computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantrecipe.plugins.native.transforms.awq import awq_scales
from quantrecipe.plugins.native.transforms.os_plus import outlier_scales, shifts
from quantrecipe.plugins.native.transforms.smoothquant import smooth_scales
from quantrecipe.recipe_transforms import AwqTransform, OutlierSuppressionTransform, SmoothQuantTransform
from tests.transform_jobs import Uneven, transform

PARTS = {
    "smoothquant": (SmoothQuantTransform(alpha=0.6), "w8a8"),
    "smoothquant-search": (SmoothQuantTransform(alpha="search"), "w4a8-g16"),
    "awq": (AwqTransform(grid=8), "w3a16-g16"),
    "os+": (OutlierSuppressionTransform(), "w4a8-g16"),
}
SHAPES = [
    "llama",
    "llama-tied",
    "opt",
    "bloom",
    "gpt-neox",
    "falcon",
    "phi",
    "phi3",
    "gpt2",
    "gemma",
    "gemma2",
    "qwen2",
]


@pytest.mark.parametrize("which", PARTS)
@pytest.mark.parametrize("family", ["llama", "opt", "bloom"])
@torch.inference_mode()
def test_without_rounding_nothing_changes(family: str, which: str, tmp_path: Path) -> None:
    check_same_function(family, *PARTS[which], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(set(SHAPES) - {"llama", "opt", "bloom"}))
@torch.inference_mode()
def test_every_family_keeps_its_function(family: str, tmp_path: Path) -> None:
    check_same_function(family, *PARTS["os+"], tmp_path)


def check_same_function(family: str, part: Any, scheme: str, folder: Path) -> None:
    model = Uneven(family, folder)
    before = model.logits()
    weights = {name: one.clone() for name, one in model.skeleton.model.named_parameters() if one.dim() == 2}
    changed, _ = transform(model, part, scheme)
    after = model.logits()
    assert float((after - before).abs().max()) < 2e-5 * float(before.abs().max())
    moved = {name for name, one in model.skeleton.model.named_parameters() if name in weights}
    moved = {name for name in moved if not torch.equal(weights[name], model.skeleton.model.get_parameter(name))}
    assert len(moved) >= 6
    assert any("norm" in name or "ln_" in name for name in changed)


@torch.inference_mode()
def test_layers_that_stay_in_16_bits_follow_and_are_written(tmp_path: Path) -> None:
    model = Uneven("llama", tmp_path)
    before = model.logits()
    changed, _ = transform(model, SmoothQuantTransform(), "w8a8", ["re:.*k_proj"])
    assert "model.layers.1.self_attn.k_proj.weight" in changed
    assert "model.layers.1.self_attn.q_proj.weight" not in changed
    assert float((model.logits() - before).abs().max()) < 2e-5 * float(before.abs().max())


@torch.inference_mode()
def test_what_cannot_be_reached_is_said(tmp_path: Path) -> None:
    _, notes = transform(Uneven("llama", tmp_path / "llama"), OutlierSuppressionTransform(), "w8a8")
    assert any("no shift" in note and "input_layernorm" in note for note in notes)
    _, notes = transform(Uneven("bloom", tmp_path / "bloom"), OutlierSuppressionTransform(), "w8a8")
    assert any("nothing folds into dense_4h_to_h" in note for note in notes)  # GELU in front of it
    assert not any("no shift" in note for note in notes)


positive = st.lists(st.floats(2**-7, 128, width=32), min_size=3, max_size=8)


@given(positive, st.floats(0, 1))
def test_smoothquant_is_equation_4(x: list[float], alpha: float) -> None:
    w = list(reversed(x))
    expected = np.asarray(x, np.float64) ** alpha / np.asarray(w, np.float64) ** (1 - alpha)
    np.testing.assert_allclose(smooth_scales(torch.tensor(x), torch.tensor(w), alpha), expected, rtol=1e-5)


def test_smoothquant_leaves_empty_channels_alone() -> None:
    s = smooth_scales(torch.tensor([0.0, 1.0, 4.0]), torch.tensor([1.0, 0.0, 1.0]), 0.5)
    assert s.tolist() == [1.0, 1.0, 2.0]


@given(positive, st.floats(0, 1))
def test_awq_scales_follow_the_mean_magnitude(x: list[float], alpha: float) -> None:
    s = np.asarray(awq_scales(torch.tensor(x), alpha), np.float64)
    expected = np.asarray(x, np.float64) ** alpha
    np.testing.assert_allclose(s, expected / np.sqrt(expected.max() * expected.min()), rtol=1e-4)


@given(positive, st.floats(0.1, 50))
def test_outlier_suppression_brings_every_channel_under_the_threshold(x: list[float], t: float) -> None:
    high, low = torch.tensor(x), -torch.tensor(x) * 0.25
    z = shifts(low, high)
    extent = high - z
    s = outlier_scales(extent, t)
    assert bool((s >= 1).all())
    assert bool((extent / s <= t * (1 + 1e-5)).all())
    np.testing.assert_allclose(high - z, z - low, rtol=1e-4)  # centred
