"""Bytes of both formats against plain integers, the library's unpacker, and INTEROP.md's facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats.bits import unpack_bits
from quantrecipe.plugins.native.formats.compressed_tensors import CompressedTensors, library_args
from quantrecipe.plugins.native.formats.gptq import Gptq
from quantrecipe.plugins.native.qparams import Grid, Quantized, dequantize
from quantrecipe.schemes import WEIGHT_BITS, QuantizationArgs
from tests import families
from tests.native_jobs import make_job, quantize
from tests.reference.formats import pack

GPTQ = {"main": {"scheme": "w4a16-g32", "method": "gptq"}}


def random_matrix(  # noqa: PLR0917
    rows: int, groups: int, size: int, bits: int, symmetric: bool, seed: int
) -> Quantized:
    rng = np.random.default_rng(seed)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    codes = torch.from_numpy(rng.integers(low, high, (rows, groups * size), dtype=np.int8))
    zero = None if symmetric else torch.from_numpy(rng.integers(low + 1, high, (rows, groups), dtype=np.int16))
    scale = torch.from_numpy(rng.uniform(0.01, 1, (rows, groups)).astype(np.float16))
    args = QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy="group", group_size=size)
    return Quantized(codes, Grid(scale, zero), args)


MATRICES = st.builds(
    random_matrix,
    rows=st.integers(1, 9),
    groups=st.integers(1, 4),
    size=st.integers(1, 40),
    bits=st.sampled_from(WEIGHT_BITS),
    symmetric=st.booleans(),
    seed=st.integers(0, 10**6),
)


@settings(max_examples=80, deadline=None)
@given(matrix=MATRICES)
def test_packed_words_are_the_plain_bit_stream(matrix: Quantized) -> None:
    bits = matrix.args.num_bits
    tensors = dict(CompressedTensors().tensors(matrix, False))
    unsigned = matrix.codes.numpy().astype(np.int64) + 2 ** (bits - 1)
    assert np.array_equal(tensors["weight_packed"].numpy(), pack(unsigned, bits))
    assert tensors["weight_shape"].tolist() == list(matrix.codes.shape)
    back = unpack_bits(tensors["weight_packed"], bits, matrix.codes.shape[1])
    assert np.array_equal(back.numpy(), unsigned)
    if matrix.grid.zero is not None:
        zeros = matrix.grid.zero.numpy().astype(np.int64) + 2 ** (bits - 1)
        assert np.array_equal(tensors["weight_zero_point"].numpy(), pack(zeros.T, bits).T)


@settings(max_examples=60, deadline=None)
@given(matrix=MATRICES, version=st.sampled_from(["gptq", "gptq_v2"]))
def test_gptq_words_are_the_transposed_bit_stream(matrix: Quantized, version: Any) -> None:
    bits = matrix.args.num_bits
    tensors = dict(Gptq(version).tensors(matrix, False))
    half = 2 ** (bits - 1)
    assert np.array_equal(tensors["qweight"].numpy(), pack(matrix.codes.numpy().astype(np.int64) + half, bits).T)
    zero = np.zeros(matrix.grid.scale.shape) if matrix.grid.zero is None else matrix.grid.zero.numpy()
    stored = (zero.astype(np.int64) + half - (version == "gptq")).T
    assert np.array_equal(tensors["qzeros"].numpy(), pack(stored, bits))
    assert torch.equal(tensors["scales"], matrix.grid.scale.t())
    assert tensors["g_idx"].tolist() == [k // matrix.args.group_size for k in range(matrix.codes.shape[1])]  # type: ignore[operator]


@settings(max_examples=40, deadline=None)
@given(matrix=MATRICES)
def test_the_librarys_decompressor_gives_our_weight(matrix: Quantized) -> None:
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationScheme

    args = library_args(matrix.args)
    state = dict(CompressedTensors().tensors(matrix, False))
    back = PackedQuantizationCompressor.decompress(state, QuantizationScheme(targets=["Linear"], weights=args))
    assert torch.equal(back["weight"], dequantize(matrix.codes, matrix.grid))


@pytest.mark.parametrize(
    ("bits", "version", "word"),
    [(4, "gptq", 0x77777777), (4, "gptq_v2", 0x88888888), (8, "gptq", 0x7F7F7F7F), (8, "gptq_v2", 0x80808080)],
)
def test_symmetric_zero_words(bits: int, version: Any, word: int) -> None:
    matrix = random_matrix(8, 2, 32, bits, True, 0)
    qzeros = dict(Gptq(version).tensors(matrix, False))["qzeros"].numpy().view(np.uint32)
    assert set(qzeros.ravel().tolist()) == {word}


def test_three_bits_fill_three_words_with_32_values() -> None:
    qweight = dict(Gptq("gptq").tensors(random_matrix(32, 1, 32, 3, True, 0), False))["qweight"]
    assert qweight.shape == (3, 32)


def test_config_has_the_old_keys_only(tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    config = CompressedTensors().config(make_job(model, tmp_path / "out", GPTQ).plan)
    assert config["quant_method"] == "compressed-tensors" and config["format"] == "pack-quantized"
    assert config["quantization_status"] == "compressed" and config["ignore"] == ["lm_head"]
    weights = config["config_groups"]["main"]["weights"]
    assert "scale_dtype" not in weights and "zp_dtype" not in weights
    assert (weights["num_bits"], weights["group_size"], weights["actorder"]) == (4, 32, "static")
    json.dumps(config)


@pytest.mark.parametrize(
    ("scheme", "expected"), [("w8a16", "pack-quantized"), ("w8a8", "int-quantized"), ("w4a8", "int-quantized")]
)
def test_each_group_says_its_format(scheme: str, expected: str, tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    config = CompressedTensors().config(make_job(model, tmp_path / "out", {"main": scheme}).plan)
    assert config["format"] == config["config_groups"]["main"]["format"] == expected


def test_gptq_files_have_full_names_and_both_configs(tmp_path: Path) -> None:
    model = families.make_model("gpt2", tmp_path / "model")
    groups = {"main": {"scheme": "w4a16-g32", "method": "gptq"}}
    checkpoint = quantize(model, tmp_path / "out", groups, "gptq", ignore=["lm_head", "re:.*h.0.mlp.c_fc"])
    folder = ModelFolder.open(checkpoint.path)
    assert "transformer.h.0.attn.c_attn.qweight" in folder and "transformer.wte.weight" in folder
    assert "transformer.h.0.mlp.c_fc.weight" in folder
    beside = json.loads((checkpoint.path / "quantize_config.json").read_text())
    assert beside == folder.config["quantization_config"]
    assert beside["bits"] == 4 and beside["sym"] is True and beside["checkpoint_format"] == "gptq"
    assert list(beside["dynamic"]) == [r"-:^transformer\.h\.0\.mlp\.c_fc$"]


def test_tied_embedding_is_written_once(tmp_path: Path) -> None:
    model = families.make_model("llama-tied", tmp_path / "model")
    names = ModelFolder.open(quantize(model, tmp_path / "out", GPTQ).path).names
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names


def test_what_stays_keeps_its_bytes(tmp_path: Path) -> None:
    model = families.make_model("qwen2", tmp_path / "model", torch.bfloat16)
    original, written = ModelFolder.open(model), ModelFolder.open(quantize(model, tmp_path / "out", GPTQ).path)
    kept = [name for name in original.names if name in written]
    assert "model.layers.0.self_attn.q_proj.bias" in kept and "lm_head.weight" in kept
    assert all(torch.equal(original.tensor(name), written.tensor(name)) for name in kept)
