"""RPTQ's clusters and orders."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import find_blocks
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.plugins.native.stages import Parameters
from quantrecipe.plugins.native.transforms.clusters import cluster, ranges
from quantrecipe.plugins.native.transforms.fold import Writer
from quantrecipe.plugins.native.transforms.reorder import junctions, reorder
from quantrecipe.plugins.native.transforms.wiring import wirings
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.quantized import Rounded
from quantrecipe.runner.serving import Service, stream
from tests.test_transforms_runs import STATIC, job_with
from tests.transform_jobs import Uneven


@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 100))
def test_clusters_are_numbered_by_width_without_gaps(channels: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    high, low = torch.rand(channels, generator=generator), -torch.rand(channels, generator=generator)
    labels = cluster(low, high, count)
    found = torch.unique(labels)
    assert torch.equal(found, torch.arange(len(found)))
    assert len(found) <= count
    widths = [float((high - low)[labels == one].max()) for one in found]
    assert widths == sorted(widths, reverse=True)
    least, most = ranges(low, high, labels)
    assert bool((least <= low).all())
    assert bool((most >= high).all())
    assert len(torch.unique(most)) <= count


def test_outliers_have_a_cluster_of_their_own() -> None:
    high = torch.cat([torch.rand(100), torch.tensor([80.0, 90.0]), torch.rand(20) + 20])
    labels = cluster(-high / 2, high, 3)
    assert torch.equal((labels == 0).nonzero().flatten(), torch.tensor([100, 101]))
    assert torch.equal((labels == 1).nonzero().flatten(), torch.arange(102, 122))


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", {"mlp.down_proj": {"mlp.gate_proj", "mlp.up_proj"}}),
        ("opt", {"fc2": {"fc1"}}),
        ("gpt2", {"mlp.c_proj": {"mlp.c_fc"}}),
        ("bloom", {"mlp.dense_4h_to_h": {"mlp.dense_h_to_4h"}}),
    ],
)
@torch.inference_mode()
def test_another_order_computes_the_same(family: str, expected: dict[str, set[str]], tmp_path: Path) -> None:
    model = Uneven(family, tmp_path)
    before = model.logits()
    for block, wiring in zip(find_blocks(model.skeleton.model), wirings(model.skeleton.model), strict=True):
        places = junctions(wiring)
        assert {place.target: set(place.sources) for place in places} == expected
        writer = Writer(Parameters(block.module, block.name, lambda _: torch.float32), frozenset())
        for place in places:
            weight = block.module.get_submodule(place.target).weight
            inputs = max(weight.shape)
            reorder(writer, place, torch.randperm(inputs, generator=torch.Generator().manual_seed(0)))
    assert float((model.logits() - before).abs().max()) < 1e-5 * float(before.abs().max())


@pytest.mark.parametrize("family", ["llama", "opt"])
@torch.inference_mode()
def test_what_is_written_reads_back_with_a_scale_a_cluster(family: str, tmp_path: Path) -> None:
    job = job_with(tmp_path, family, STATIC, [{"name": "rptq", "clusters": 4}], format="quantrecipe")
    checkpoint = NativeBackend().quantize(dataclasses.replace(job, format="quantrecipe"))
    stored = ModelFolder.open(checkpoint.path)
    for layer in checkpoint.layers:
        scale = stored.tensor(f"{layer.name}.input_scale")
        assert scale.shape == (layer.columns,)
        assert 2 <= len(torch.unique(scale)) <= 4
        if layer.name.endswith(("down_proj", "fc2")):  # its clusters lie side by side
            assert int((scale[1:] != scale[:-1]).sum()) == len(torch.unique(scale)) - 1
    scorer = stream(checkpoint.path, Service("cpu", Rounded.of(job.plan), torch.float32))
    scorer.run(job.witness, Quiet())
    logits = scorer.logits(0, 0, job.witness.shape[1])
    torch.testing.assert_close(logits, checkpoint.witness_logits, rtol=1e-4, atol=1e-5)
