"""Data-free runs without a forward pass: the same tensors as block by block, whatever the slices and threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32 as library_pack
from hypothesis import given
from hypothesis import strategies as st

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.plugins.native import run, straight
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.plugins.native.formats.packing import pack_to_int32
from quantrecipe.plugins.native.make_stages import make_stages
from tests import families
from tests.native_jobs import make_job

SCHEMES = {"plain": "w4a16-g32", "rows": "w3a16-asym", "whole": {"weights": {"num_bits": 8, "strategy": "tensor"}}}


def pair(tmp_path: Path, family: str, group: Any, form: str) -> list[Any]:
    """The same job block by block and straight through."""
    model = families.make_model(family, tmp_path / "model")
    jobs = [make_job(model, tmp_path / name, {"main": group}, form) for name in ("blocks", "straight")]
    blocks = run.quantize_by_blocks(jobs[0], make_stages(jobs[0]))
    return [blocks, NativeBackend().quantize(jobs[1])]


@pytest.mark.parametrize(
    ("family", "scheme", "form"),
    [
        ("llama-tied", "plain", "compressed-tensors"),
        ("bloom", "rows", "compressed-tensors"),
        ("llama", "whole", "compressed-tensors"),
        ("gpt2", "plain", "gptq"),
        ("falcon", "plain", "gptq_v2"),
    ],
)
@torch.inference_mode()
def test_same_tensors_as_block_by_block(
    family: str, scheme: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(straight, "SLICE", 700)
    monkeypatch.setattr(straight, "SHARD_BYTES", 60_000)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    one, other = pair(tmp_path, family, SCHEMES[scheme], form)
    assert one.witness_logits is not None and other.witness_logits is None
    before, after = ModelFolder.open(one.path), ModelFolder.open(other.path)
    assert before.names == after.names and before.config == after.config
    assert len(after.files()) > 1
    for name in before.names:
        assert torch.equal(before.tensor(name), after.tensor(name)), name
    for left, right in zip(one.layers, other.layers, strict=True):
        assert (left.name, left.digest, left.bytes) == (right.name, right.digest, right.bytes)
        assert left.relative_error == pytest.approx(right.relative_error, rel=1e-5)


def test_same_bytes_whatever_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = families.make_model("llama", tmp_path / "model")
    folders = []
    for threads in (1, 4):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=threads: count)
        folders.append(NativeBackend().quantize(make_job(model, tmp_path / str(threads), {"main": "w4a16-g32"})).path)
    assert ModelFolder.open(folders[0]).hashes() == ModelFolder.open(folders[1]).hashes()


def test_what_looks_at_activations_goes_block_by_block(tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    for group in ("w8a8", {"scheme": "w4a16-g32", "method": "gptq"}):
        job = make_job(model, tmp_path / "out", {"main": group})
        assert not straight.is_straight(job, make_stages(job))


@given(rows=st.integers(1, 9), columns=st.integers(1, 70), bits=st.integers(2, 8), seed=st.integers(0, 99))
def test_packing_is_the_librarys(rows: int, columns: int, bits: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), (rows, columns), generator=random).to(torch.int8)
    for dim in (0, 1):
        assert torch.equal(pack_to_int32(codes, bits, dim), library_pack(codes, bits, packed_dim=dim))
