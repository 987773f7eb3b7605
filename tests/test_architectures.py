"""Every architecture: streamed quantization writes what unstreamed quantization of the whole model gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.native import run
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.plugins.native.formats import format_named
from tests import families
from tests.native_jobs import make_job, tokens
from tests.unstreamed import quantize_whole

FAST = ("opt-350m", "mixtral", "deepseek-v3")
NARROW = {"opt-350m": ["lm_head", "re:.*project_(in|out)"]}
IN_TURN = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in families.FAMILIES]


def form_of(family: str) -> str:
    return "gptq_v2" if family in ("gpt2", "falcon", "falcon-new") else "compressed-tensors"


def check_same_bytes(family: str, group: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "BATCH_TOKENS", 64)  # several batches, so that experts see different tokens in each
    model = families.make_model(family, tmp_path / "model")
    job = make_job(model, tmp_path / "out", {"main": group}, form_of(family), NARROW.get(family))
    NativeBackend().quantize(job)
    written, skeleton = ModelFolder.open(tmp_path / "out"), Skeleton(ModelFolder.open(model))
    assert job.calibration is not None
    with torch.inference_mode():
        wanted = quantize_whole(
            model, job.plan, list(job.calibration.split(2)), format_named(job.format, family == "gpt2")
        )
    prefix = str(skeleton.model.base_model_prefix)
    for name, tensor in wanted.items():
        module, _, suffix = name.rpartition(".")
        stored = skeleton.written_name(f"{module}.weight").removesuffix(".weight")
        place = stored if f"{stored}.{suffix}" in written else f"{prefix}.{stored}"
        assert torch.equal(written.tensor(f"{place}.{suffix}"), tensor), name
    assert len(wanted) >= 2 * len(job.plan.quantized)


@pytest.mark.parametrize("family", families.FAMILIES)
def test_rounding_streamed_gives_the_same_bytes(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_same_bytes(family, "w4a16-g32", tmp_path, monkeypatch)


@pytest.mark.parametrize("family", IN_TURN)
def test_gptq_streamed_gives_the_same_bytes(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_same_bytes(family, {"scheme": "w4a16-g32", "method": "gptq"}, tmp_path, monkeypatch)


def test_tokens_seen_are_counted(tmp_path: Path) -> None:
    model = families.make_model("mixtral", tmp_path / "model")
    job = make_job(model, tmp_path / "out", {"main": {"scheme": "w4a16-g32", "method": "gptq"}})
    records = {record.name: record for record in NativeBackend().quantize(job).layers}
    every = tokens(8, 32).numel()
    assert records["model.layers.0.self_attn.q_proj"].tokens == every
    experts = [records[f"model.layers.0.mlp.experts.{index}.down_proj"].tokens for index in range(4)]
    assert sum(experts) == 2 * every  # two experts a token


def test_the_documented_architectures_are_the_tested_ones() -> None:
    text = (Path(__file__).parents[1] / "docs" / "running.md").read_text(encoding="utf-8")
    section = text.split("### Architectures")[1].split("### Mixtures")[0]
    assert set(re.findall(r"`(\w+Config)`", section)) == {name for name, _ in families.FAMILIES.values()}


@torch.inference_mode()
def test_what_the_library_keeps_in_fp32_stays_so(tmp_path: Path) -> None:
    """DeepSeek-V3's correction of its routers, a stored buffer, in a bf16 model."""
    from transformers import AutoModelForCausalLM

    folder = families.make_model("deepseek-v3", tmp_path / "model", torch.bfloat16)
    skeleton = Skeleton(ModelFolder.open(folder))
    skeleton.materialize("", torch.bfloat16)
    name = "model.layers.1.mlp.gate.e_score_correction_bias"
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    ours, theirs = skeleton.model.get_buffer(name), whole.get_buffer(name)
    assert ours.dtype == theirs.dtype == torch.float32
    assert torch.equal(ours, theirs) and bool(ours.any())


@pytest.mark.parametrize("family", ["mixtral", "gpt-oss"])
def test_a_block_of_experts_is_held_once(family: str, tmp_path: Path) -> None:
    skeleton = Skeleton(ModelFolder.open(families.make_model(family, tmp_path / "model")))
    skeleton.materialize("model.layers.0", torch.bfloat16)
    held = list(skeleton.model.get_submodule("model.layers.0").parameters())
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in held}
    assert sum(storages.values()) == sum(one.nbytes for one in held)
    skeleton.release("model.layers.0")
    assert all(one.is_meta for one in skeleton.model.get_submodule("model.layers.0").parameters())
