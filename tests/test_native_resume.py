"""A run that is stopped goes on to the same bytes; activations in files give the same bytes as in memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from quantrecipe.modeling import tensor_file
from quantrecipe.modeling.journal import read_lines
from quantrecipe.plugins.contract import Checkpoint, Job
from quantrecipe.plugins.native import stages, straight
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.plugins.native.block import Worker
from quantrecipe.recipe_transforms import OtherTransform
from tests import families
from tests.native_jobs import make_job
from tests.test_native_stages import Doubling

GPTQ = {"main": {"scheme": "w4a16-g32", "method": "gptq"}}


class Stopped(Exception):
    """The run was stopped here."""


def _job(root: Path, name: str, family: str = "llama-tied", form: str = "compressed-tensors", **more: Any) -> Job:
    model = root / "model"
    if not model.exists():
        families.make_model(family, model)
    job = make_job(model, root / name / "checkpoint", more.pop("groups", GPTQ), form)
    return dataclasses.replace(job, scratch=root / name, **more)


def _files(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(checkpoint.path.iterdir())}


def _stop_in(job: Job, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Carry the job out until block ``block`` begins."""
    real = Worker.carry_out

    def carry_out(self: Worker, one: Any, behind: Any) -> Any:
        if one.index == block:
            raise Stopped
        return real(self, one, behind)

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(Worker, "carry_out", carry_out)
        patched.setattr("quantrecipe.plugins.native.states.LEAST_SHARE", 0)
        NativeBackend().quantize(job)


@pytest.mark.parametrize(
    ("groups", "form", "spill"),
    [
        (GPTQ, "compressed-tensors", False),
        (GPTQ, "gptq", True),
        ({"main": "w8a8"}, "compressed-tensors", False),
        ({"main": {"scheme": "w8a8", "method": "gptq"}, "x": {"scheme": "w8a16", "targets": ["re:.*down_proj"]}},
         "compressed-tensors", True),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stop", [1, 2])
def test_a_stopped_run_goes_on_to_the_same_bytes(  # noqa: PLR0917
    groups: Any, form: str, spill: bool, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = NativeBackend().quantize(_job(tmp_path, "whole", form=form, groups=groups))
    job = _job(tmp_path, "stopped", form=form, groups=groups, spill=spill)
    _stop_in(job, stop, monkeypatch)
    assert list(job.output_path.iterdir()) == []
    assert [line["place"] for line in read_lines(tmp_path / "stopped") if line["kind"] == "block"] == [*range(stop)]
    resumed = NativeBackend().quantize(job)
    assert [line["place"] for line in read_lines(tmp_path / "stopped") if line["kind"] == "block"] == [0, 1, 2]
    assert _files(resumed) == _files(whole)
    assert torch.equal(resumed.witness_logits, whole.witness_logits)  # type: ignore[arg-type]
    plain = [dataclasses.replace(layer, seconds=0) for layer in whole.layers]
    assert [dataclasses.replace(layer, seconds=0) for layer in resumed.layers] == plain


def test_both_streams_and_changed_parameters_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stages.TRANSFORMS, "doubling", Doubling)
    outcomes = []
    for name, spill, stop in (("whole", False, None), ("stopped", False, 2), ("spilled", True, 1)):
        job = _job(tmp_path, name, "llama", spill=spill)
        job.recipe.quantization.transforms = [OtherTransform(name="doubling", options={"factor": 2.0})]
        if stop is not None:
            _stop_in(job, stop, monkeypatch)
        outcomes.append(NativeBackend().quantize(job))
    assert _files(outcomes[0]) == _files(outcomes[1]) == _files(outcomes[2])
    assert outcomes[0].details == outcomes[1].details == outcomes[2].details
    assert "model.norm.weight" in outcomes[1].details["changed_parameters"]


def test_a_finished_run_quantizes_nothing_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = _job(tmp_path, "run")
    first = NativeBackend().quantize(job)
    bytes_before, logits = _files(first), first.witness_logits
    for path in job.output_path.iterdir():
        path.unlink()
    monkeypatch.setattr(Worker, "carry_out", None)
    again = NativeBackend().quantize(job)
    assert _files(again) == bytes_before
    assert torch.equal(again.witness_logits, logits)  # type: ignore[arg-type]
    assert again.layers == first.layers


@pytest.mark.parametrize("harmed", ["block-00000.safetensors", "quantized-00002.safetensors"])
def test_what_is_damaged_in_the_scratch_folder_is_done_anew(
    harmed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = NativeBackend().quantize(_job(tmp_path, "whole"))
    job = _job(tmp_path, "stopped")
    _stop_in(job, 2, monkeypatch)
    path = tmp_path / "stopped" / harmed
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert _files(NativeBackend().quantize(job)) == _files(whole)


@pytest.mark.parametrize("family", ["gpt2", "bloom", "falcon", "gemma2", "phi"])
def test_spilling_and_lanes_agree_in_every_family(family: str, tmp_path: Path) -> None:
    found = []
    for name, spill in (("lanes", False), ("spilled", True)):
        job = _job(tmp_path, name, family, "gptq", spill=spill)
        found.append(_files(NativeBackend().quantize(job)))
    assert found[0] == found[1]


def test_without_a_scratch_folder_nothing_is_left(tmp_path: Path) -> None:
    job = dataclasses.replace(_job(tmp_path, "run"), scratch=None)
    checkpoint = NativeBackend().quantize(job)
    assert {path.name for path in checkpoint.path.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("at", [1, 2, 3, 5])
def test_a_straight_run_goes_on_behind_its_last_shard(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(straight, "SHARD_BYTES", 12_000)
    groups = {"main": "w4a16-g32-asym"}
    whole = NativeBackend().quantize(_job(tmp_path, "whole", groups=groups))
    job = _job(tmp_path, "stopped", groups=groups)
    real = tensor_file.write_tensor_file

    def write(path: Path, pieces: Any) -> str:
        if path.name == f"part-{at:05d}.safetensors":
            path.write_bytes(b"half")
            raise Stopped
        return real(path, pieces)

    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(tensor_file, "write_tensor_file", write)
        NativeBackend().quantize(job)
    seen: list[str] = []
    real_quantize = straight._Straight._quantize
    monkeypatch.setattr(
        straight._Straight, "_quantize", lambda self, one: (seen.append(one.name), real_quantize(self, one))[1]
    )
    resumed = NativeBackend().quantize(job)
    assert _files(resumed) == _files(whole)
    assert len(seen) < len(whole.layers)
    seen.clear()
    again = NativeBackend().quantize(job)  # killed behind its end: nothing is quantized anew
    assert _files(again) == _files(whole) and seen == []
    plain = [dataclasses.replace(layer, seconds=0) for layer in whole.layers]
    assert [dataclasses.replace(layer, seconds=0) for layer in again.layers] == plain
