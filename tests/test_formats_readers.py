"""Readers of other tools' checkpoints against plain-integer writers, the tools' own unpackers, and each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import READERS, reader_of
from quantrecipe.modeling.formats.bits import unpack_bits, unpack_padded
from quantrecipe.modeling.formats.bitsandbytes import Bits4Reader
from quantrecipe.modeling.formats.compressed_config import candidates, schemes_of
from tests import families, foreign


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return families.make_model("llama", tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("kind", foreign.KINDS)
def test_weights_read_back_as_what_was_written(kind: str, model: Path, tmp_path: Path) -> None:
    meant = foreign.convert(kind, model, tmp_path / "out")
    folder = ModelFolder.open(tmp_path / "out")
    reader = reader_of(folder)
    assert reader.modules(folder) == sorted(meant)
    for name, weight in meant.items():
        assert list(reader.faults(folder, name)) == []
        assert reader.shape(folder, name) == weight.shape
        found = reader.decode(folder, name).weight(torch.float32).numpy()
        assert np.abs(found - weight).max() <= 2e-7 * np.abs(weight).max()


def test_nibbles_are_in_the_order_that_autoawq_unpacks() -> None:
    """awq/utils/packing_utils.py: unpack_awq, then reverse_awq_order."""
    qweight = torch.randint(-(2**31), 2**31 - 1, (5, 3), dtype=torch.int32)
    shifts = torch.arange(0, 32, 4)
    codes = torch.bitwise_right_shift(qweight[:, :, None], shifts[None, None, :]).to(torch.int8).view(5, -1)
    order = torch.arange(24).view(-1, 8)[:, [0, 4, 1, 5, 2, 6, 3, 7]].view(-1)
    expected = torch.bitwise_and(codes[:, order], 15)
    reader: Any = READERS["awq"]({"bits": 4, "group_size": 32})
    assert torch.equal(reader._columns(qweight, 24), expected.to(torch.uint8))


@pytest.mark.parametrize("bits", [3, 5, 6, 7])
def test_older_compressed_tensors_left_bits_of_each_word_unused(bits: int) -> None:
    codes = np.random.default_rng(0).integers(0, 2**bits, (4, 40))
    each = 32 // bits
    words = np.zeros((4, -(-40 // each)), dtype=np.int64)
    for column in range(40):
        words[:, column // each] |= codes[:, column] << (bits * (column % each))
    found = unpack_padded(torch.from_numpy(words.astype(np.uint32).view(np.int32)), bits, 40)
    assert np.array_equal(found.numpy(), codes)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_codes_come_as_bytes(bits: int) -> None:
    assert unpack_bits(torch.zeros(3, bits, dtype=torch.int32), bits, 32).dtype == torch.uint8


def test_the_group_that_names_a_module_comes_before_its_class() -> None:
    weights = {"num_bits": 4, "strategy": "channel"}
    groups = {
        "a": {"targets": ["Linear"], "weights": weights},
        "b": {"targets": ["re:.*down_proj"], "weights": weights | {"num_bits": 8}},
    }
    schemes = schemes_of({"format": "pack-quantized", "config_groups": groups})
    assert [one.bits for one in candidates(schemes, "layers.0.down_proj")] == [8, 4]
    assert [one.bits for one in candidates(schemes, "layers.0.up_proj")] == [4]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"quant_method": "magic"},
        {"quant_method": 4},
        {"quant_method": "gptq"},
        {"quant_method": "gptq", "bits": "four"},
        {"quant_method": "gptq", "bits": 4, "group_size": -7},
        {"quant_method": "awq", "version": "gemv"},
        {"quant_method": "compressed-tensors", "config_groups": []},
        {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 99}}}},
    ],
)
def test_a_config_that_makes_no_sense_is_one_line(config: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        reader_of(ModelFolder(tmp_path, {"quantization_config": config}, {}))


def test_nf4_and_fp4_read_as_bitsandbytes_reads_them(tmp_path: Path) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    weight = torch.randn(64, 128)  # with blocks that straddle rows bitsandbytes 0.50.2 itself is wrong on a CPU
    for kind in ("nf4", "fp4"):
        for twice in (False, True):
            packed, state = functional.quantize_4bit(weight, quant_type=kind, blocksize=64, compress_statistics=twice)
            parts = {f"a.weight.{key}": value for key, value in state.as_dict(packed=True).items()}
            save_file({"a.weight": packed, **parts}, tmp_path / "model.safetensors")
            (tmp_path / "config.json").write_text("{}")
            folder = ModelFolder.open(tmp_path)
            assert Bits4Reader().modules(folder) == ["a"]
            found = Bits4Reader().decode(folder, "a").weight(torch.float32)
            expected = functional.dequantize_4bit(packed, state)
            assert torch.allclose(found, expected, rtol=1e-6, atol=1e-7)
