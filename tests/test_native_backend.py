"""The native backend end to end, on small random models of many families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from quantrecipe.errors import BackendError, ModelError
from quantrecipe.modeling.digest import digest
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import read_dequantized
from quantrecipe.plugins.native.activations import Rounding, apply_scheme
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.plugins.native.load import load
from quantrecipe.schemes import QuantizationArgs
from tests import families
from tests.native_jobs import load_with_transformers, make_job, quantize, tokens

RTN4 = {"main": "w4a16-g32"}
GPTQ4 = {"main": {"scheme": "w4a16-g32", "method": "gptq"}}
TOKEN = QuantizationArgs(num_bits=8, strategy="token", dynamic=True)


def weight_of(model: Any, name: str) -> torch.Tensor:
    module = model.get_submodule(name)
    return module.weight.t() if type(module).__name__ == "Conv1D" else module.weight


def check_reload(model: Any, checkpoint: Any, tolerance: float = 1e-4) -> None:
    """Digests equal, logits of the witness equal but for the order of sums."""
    for record in checkpoint.layers:
        assert digest(weight_of(model, record.name)) == record.digest, record.name
    if checkpoint.witness_logits is None:  # data-free: no forward pass
        return
    logits = model(tokens(2, 24, seed=2)).logits.float()
    scale = float(checkpoint.witness_logits.abs().max())
    assert float((logits - checkpoint.witness_logits).abs().max()) <= tolerance * scale


@pytest.mark.parametrize("family", ["llama", "llama-tied", "opt", "opt-350m", "bloom", "gpt-neox", "qwen2", "gemma2"])
@torch.inference_mode()
def test_transformers_reads_back_what_was_meant(family: str, tmp_path: Path) -> None:
    model = families.make_model(family, tmp_path / "model")
    ignore = ["lm_head", "re:.*project_(in|out)"] if family == "opt-350m" else ["lm_head"]
    checkpoint = quantize(model, tmp_path / "out", GPTQ4, ignore=ignore)
    check_reload(load_with_transformers(checkpoint.path), checkpoint)
    assert all(0 < record.relative_error < 0.3 for record in checkpoint.layers)
    assert all(record.output_error and record.output_error < 0.3 for record in checkpoint.layers)


@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("family", ["gpt2", "llama-tied", "bloom", "falcon"])
@torch.inference_mode()
def test_the_reader_reads_back_gptq_files(family: str, form: str, tmp_path: Path) -> None:
    model = families.make_model(family, tmp_path / "model")
    checkpoint = quantize(model, tmp_path / "out", GPTQ4, form)
    check_reload(load(checkpoint.path, "cpu"), checkpoint)
    assert "lm_head.weight" in ModelFolder.open(checkpoint.path)  # tied or not, as published GPTQ files have it


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w4a8-g32"])
@torch.inference_mode()
def test_integer_activations_compute_what_transformers_computes(scheme: str, tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    checkpoint = quantize(model, tmp_path / "out", {"main": {"scheme": scheme, "method": "gptq"}})
    loaded = load_with_transformers(checkpoint.path)
    check_reload(loaded, checkpoint)
    q_proj = loaded.model.layers[0].self_attn.q_proj
    assert q_proj.quantization_scheme.input_activations.num_bits == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@torch.inference_mode()
def test_every_width_and_dtype_reads_back_bit_equal(
    bits: int, symmetric: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = families.make_model("llama", tmp_path / "model", dtype)
    strategy = {"strategy": "group", "group_size": 16} if bits % 2 else {"strategy": "channel"}
    groups = {"main": {"weights": {"num_bits": bits, "symmetric": symmetric, **strategy}}}
    checkpoint = quantize(model, tmp_path / "out", groups)
    loaded = load_with_transformers(checkpoint.path)
    served = torch.float32 if dtype == torch.float16 else dtype
    for record in checkpoint.layers:
        assert digest(weight_of(loaded.to(served), record.name)) == record.digest or dtype == torch.float16
        assert torch.equal(read_dequantized(checkpoint.path, record.name), weight_of(loaded, record.name).to(dtype))


@torch.inference_mode()
def test_one_scale_a_tensor(tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    for symmetric in (True, False):
        groups = {"main": {"weights": {"num_bits": 8, "strategy": "tensor", "symmetric": symmetric}}}
        checkpoint = quantize(model, tmp_path / f"out{symmetric}", groups)
        check_reload(load_with_transformers(checkpoint.path), checkpoint)


@torch.inference_mode()
def test_mixed_schemes_go_out_as_mixed_precision(tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    groups = {
        "main": {"scheme": "w4a16-g32", "method": "gptq"},
        "sensitive": {"scheme": "w8a16", "targets": ["re:.*down_proj"]},
        "activations": {"scheme": "w8a8", "targets": ["model.layers.1.mlp.up_proj"], "method": "gptq"},
    }
    checkpoint = quantize(model, tmp_path / "out", groups, ignore=["lm_head", "model.layers.0.self_attn.q_proj"])
    check_reload(load_with_transformers(checkpoint.path), checkpoint)
    schemes = {record.name: (record.scheme, record.method) for record in checkpoint.layers}
    assert schemes["model.layers.2.mlp.down_proj"] == ("w8a16", "rtn")
    assert schemes["model.layers.1.mlp.up_proj"] == ("w8a8", "gptq")
    assert "model.layers.0.self_attn.q_proj" not in schemes


@torch.inference_mode()
def test_quantized_head(tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    groups = {**GPTQ4, "head": {"scheme": "w8a16", "targets": ["lm_head"]}}
    checkpoint = quantize(model, tmp_path / "out", groups, ignore=[])
    check_reload(load_with_transformers(checkpoint.path), checkpoint)


def test_same_input_same_bytes(tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    first, second = (quantize(model, tmp_path / name, GPTQ4) for name in ("a", "b"))
    files = sorted(path.name for path in first.path.iterdir())
    assert files == sorted(path.name for path in second.path.iterdir())
    assert all((first.path / name).read_bytes() == (second.path / name).read_bytes() for name in files)


@torch.inference_mode()
def test_gptq_loses_less_at_the_output_than_rtn(tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    nearest = quantize(model, tmp_path / "rtn", {"main": "w3a16-g32"})
    better = quantize(model, tmp_path / "gptq", {"main": {"scheme": "w3a16-g32", "method": "gptq"}})
    original = quantize(model, tmp_path / "w8", {"main": "w8a16"})
    assert all(record.output_error is None for record in nearest.layers)
    logits = [load_with_transformers(one.path)(tokens(2, 24, seed=2)).logits for one in (original, nearest, better)]
    assert (logits[2] - logits[0]).norm() < (logits[1] - logits[0]).norm()


def test_nan_in_a_weight_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = families.make_model("llama", tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        quantize(model, tmp_path / "out", RTN4)


def test_scale_too_large_for_fp16_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = families.make_model("llama", tmp_path / "model", torch.bfloat16)
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = 1e7
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackendError, match=r"model\.layers\.1\.mlp\.up_proj.*float16.*compressed-tensors"):
        quantize(model, tmp_path / "out", RTN4, "gptq")


@pytest.mark.parametrize(
    ("family", "groups", "form", "said"),
    [
        ("gpt2", RTN4, "compressed-tensors", "no plain Linear"),
        ("falcon", RTN4, "compressed-tensors", "no plain Linear"),
        ("llama", {"main": "w5a16-g32"}, "gptq", "bit width"),
        ("llama", {"main": "w8a8"}, "gptq", "activations"),
        ("llama", {**RTN4, "other": {"scheme": "w8a16", "targets": ["re:.*down_proj"]}}, "gptq", "more than one"),
        ("llama", {"main": "w4a12"}, "compressed-tensors", "inputs of"),
        ("llama", {"main": {"scheme": "nvfp4", "method": "gptq"}}, "compressed-tensors", "integer"),
        ("llama", {"main": "nvfp4"}, "gptq", "number type"),
        ("llama", {"main": {"scheme": "w4a16-g32", "method": "gtpq"}}, "compressed-tensors", "did you mean 'gptq'"),
        ("llama", {"main": {"scheme": "w4a16-g32", "method": "hqq"}}, "compressed-tensors", "zero points"),
        ("llama", {"main": {"scheme": "w4a16-g32", "method": "olive"}}, "compressed-tensors", "cannot hold"),
        ("llama", {"main": {"scheme": "w8a8-ag48"}}, "compressed-tensors", "does not divide"),
        ("llama", {"main": "nf4"}, "compressed-tensors", "cannot hold"),
        ("llama", {"main": "w4a16-g32"}, "bitsandbytes", "cannot hold"),
        ("llama", RTN4, "awq", "format"),
    ],
)
def test_what_cannot_be_done_is_refused(family: str, groups: Any, form: str, said: str, tmp_path: Path) -> None:
    model = families.make_model(family, tmp_path / "model")
    with pytest.raises(BackendError, match=said):
        NativeBackend().quantize(make_job(model, tmp_path / "out", groups, form))
    assert not list((tmp_path / "out").iterdir())


def test_too_little_calibration_text_is_refused(tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    with pytest.raises(BackendError, match="16 tokens"):
        quantize(model, tmp_path / "out", GPTQ4, calibration=tokens(2, 8))


def test_apply_scheme_can_be_taken_back() -> None:
    linear = torch.nn.Linear(8, 4)
    x = torch.randn(3, 8)
    plain = linear(x)
    handle = apply_scheme(linear, Rounding(TOKEN))
    assert not torch.equal(linear(x), plain)
    handle.remove()
    assert torch.equal(linear(x), plain)


def test_capabilities_import_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from quantrecipe.plugins.manager import backends; b = backends()['native'];"
        "b.capabilities(); assert b.availability().available;"
        "print([m for m in ('torch', 'numba', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
