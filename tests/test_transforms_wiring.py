"""What folds into what, found without a list of models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.native.transforms.norms import norm_facts
from quantrecipe.plugins.native.transforms.wiring import Wiring, wirings
from tests import families

QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
LLAMA = {
    "input_layernorm": QKV,
    "self_attn.v_proj": ("self_attn.o_proj",),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.up_proj": ("mlp.down_proj",),
}
SCALES = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "gemma": LLAMA,
    "gemma2": {key.replace("post_attention", "pre_feedforward"): value for key, value in LLAMA.items()},
    "opt": {
        "self_attn_layer_norm": QKV,
        "self_attn.v_proj": ("self_attn.out_proj",),
        "final_layer_norm": ("fc1",),
        "fc1": ("fc2",),
    },
    # its norms come behind the residual sum and go on into the residual stream
    "opt-350m": {"self_attn.v_proj": ("self_attn.out_proj",), "fc1": ("fc2",)},
    "phi": {"input_layernorm": (*QKV, "mlp.fc1"), "self_attn.v_proj": ("self_attn.dense",)},
    "bloom": {
        "input_layernorm": ("self_attention.query_key_value",),
        "self_attention.query_key_value": ("self_attention.dense",),
        "post_attention_layernorm": ("mlp.dense_h_to_4h",),
    },
    "falcon": {
        "input_layernorm": ("self_attention.query_key_value", "mlp.dense_h_to_4h"),
        "self_attention.query_key_value": ("self_attention.dense",),
    },
    "gpt2": {"ln_1": ("attn.c_attn",), "attn.c_attn": ("attn.c_proj",), "ln_2": ("mlp.c_fc",)},
}


def wiring_of(family: str, folder: Path) -> Wiring:
    skeleton = Skeleton(ModelFolder.open(families.make_model(family, folder)))
    found = wirings(skeleton.model)
    assert len(found) == 3
    assert all(parameter.device.type == "meta" for parameter in skeleton.model.parameters())
    return found[0]


@pytest.mark.parametrize("family", SCALES)
def test_what_scales_into_what(family: str, tmp_path: Path) -> None:
    found = {fold.source: fold.targets for fold in wiring_of(family, tmp_path).folds if fold.scales}
    assert {source: set(targets) for source, targets in found.items()} == {
        source: set(targets) for source, targets in SCALES[family].items()
    }


def test_values_are_found_in_grouped_and_in_interleaved_matrices(tmp_path: Path) -> None:
    rows = {fold.source: fold.rows for fold in wiring_of("llama", tmp_path / "llama").folds}
    head = torch.arange(16)
    expected = torch.cat([head, head, head + 16, head + 16])  # 4 heads share 2 heads of values
    assert torch.equal(rows["self_attn.v_proj"], expected)
    rows = {fold.source: fold.rows for fold in wiring_of("bloom", tmp_path / "bloom").folds}
    heads = torch.arange(4).unsqueeze(1) * 48 + 32  # q, k, v of 16 rows in turn, head by head
    assert torch.equal(rows["self_attention.query_key_value"], (heads + torch.arange(16)).flatten())
    rows = {fold.source: fold.rows for fold in wiring_of("phi3", tmp_path / "phi3").folds}
    assert torch.equal(rows["self_attn.qkv_proj"], expected + 96)


def test_shifts_need_biases_and_pass_through_attention(tmp_path: Path) -> None:
    opt = {fold.source: fold.shifts for fold in wiring_of("opt", tmp_path / "opt").folds}
    assert opt == {"self_attn_layer_norm": True, "self_attn.v_proj": True, "final_layer_norm": True, "fc1": False}
    llama = {fold.source: fold.shifts for fold in wiring_of("llama", tmp_path / "llama").folds}
    assert not llama["input_layernorm"]
    assert llama["self_attn.v_proj"]  # the rows of softmax sum to one


def test_order_alone_passes_through_a_gelu(tmp_path: Path) -> None:
    fold = next(fold for fold in wiring_of("gpt2", tmp_path).folds if fold.source == "mlp.c_fc")
    assert not fold.scales
    assert torch.equal(fold.rows, torch.arange(256))


@pytest.mark.parametrize("family", ["llama", "opt", "bloom", "gpt2", "gpt-neox", "falcon", "phi", "gemma"])
def test_pre_norm_streams_can_be_rotated(family: str, tmp_path: Path) -> None:
    residual = wiring_of(family, tmp_path).residual
    assert residual.fault is None
    assert len(residual.writers) == 2


@pytest.mark.parametrize(("family", "why"), [("gemma2", "a norm, is added"), ("opt-350m", "without a norm")])
def test_others_cannot(family: str, why: str, tmp_path: Path) -> None:
    fault = wiring_of(family, tmp_path).residual.fault
    assert fault is not None
    assert why in fault


def test_norms_are_known_by_what_they_compute() -> None:
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    layer, rms, gemma = norm_facts(torch.nn.LayerNorm(8)), norm_facts(LlamaRMSNorm(8)), norm_facts(GemmaRMSNorm(8))
    assert layer and layer.centered and layer.has_bias and layer.offset == 0
    assert rms and not rms.centered and not rms.has_bias and rms.offset == 0
    assert gemma and gemma.offset == 1
    assert norm_facts(torch.nn.Linear(8, 8)) is None
    assert norm_facts(torch.nn.PReLU(8)) is None


@pytest.mark.parametrize("family", ["mixtral", "qwen2-moe", "gpt-oss"])
def test_what_a_router_reads_is_left_alone(family: str, tmp_path: Path) -> None:
    found = wiring_of(family, tmp_path)
    assert {"input_layernorm", "self_attn.v_proj"} <= {fold.source for fold in found.folds if fold.scales}
    assert not any("experts." in name for fold in found.folds for name in fold.targets)
    assert not any(fold.source == "post_attention_layernorm" for fold in found.folds)
    assert found.residual.fault is not None
