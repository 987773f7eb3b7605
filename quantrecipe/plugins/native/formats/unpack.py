"""A reader written apart from the writers: plain bit arithmetic on the formats as INTEROP.md tells them.

It shares no helper with the code that packs, so an error there shows here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import ModelFolder

GPTQ_METHODS = ("gptq", "gptqmodel")


def unpack_bits(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """int32 words [R, W] -> unsigned values int64 [R, count]: value i is bits i*b … of a row's bit stream."""
    stream = words.to(torch.int64) & 0xFFFFFFFF
    stream = torch.cat([stream, torch.zeros(len(stream), 1, dtype=torch.int64)], dim=1)
    first_bit = torch.arange(count) * bits
    word, shift = first_bit // 32, first_bit % 32
    two_words = stream[:, word] | (stream[:, word + 1] << 32)
    values: torch.Tensor = (two_words >> shift) & (2**bits - 1)
    return values


def read_dequantized(folder: Path, name: str) -> torch.Tensor:
    """The weight [N, K] of the module whose tensors begin with ``name``, in the dtype of its scales.

    Raises ModelError where the folder's config names no format known here, or a tensor is missing.
    """
    model = ModelFolder.open(folder)
    config = quantization_config(model.config, folder)
    if config.get("quant_method") in GPTQ_METHODS:
        return _gptq(model, name, config)
    if config.get("quant_method") == "compressed-tensors":
        return _compressed(model, name, config)
    raise ModelError("no quantization format that this reader knows", value=config.get("quant_method"))


def quantization_config(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """From config.json, or quantize_config.json beside it."""
    found = config.get("quantization_config")
    beside = folder / "quantize_config.json"
    if found is None and beside.exists():
        found = json.loads(beside.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def _gptq(model: ModelFolder, name: str, config: dict[str, Any]) -> torch.Tensor:
    bits = int(config["bits"])
    scales, g_idx = model.tensor(f"{name}.scales"), model.tensor(f"{name}.g_idx").long()
    codes = unpack_bits(model.tensor(f"{name}.qweight").t(), bits, len(g_idx))
    zeros = unpack_bits(model.tensor(f"{name}.qzeros"), bits, scales.shape[1])
    if config.get("checkpoint_format", "gptq") == "gptq":
        zeros = (zeros + 1) & (2**bits - 1)
    steps = codes - zeros[g_idx].t()
    return steps.to(scales.dtype) * scales[g_idx].t()


def _compressed(model: ModelFolder, name: str, config: dict[str, Any]) -> torch.Tensor:
    scale = model.tensor(f"{name}.weight_scale")
    if f"{name}.weight_packed" not in model:
        return _spread(_minus_zero(model, name, model.tensor(f"{name}.weight").long()), scale)
    rows, columns = model.tensor(f"{name}.weight_shape").tolist()
    packed = model.tensor(f"{name}.weight_packed")
    bits = _bits(config, packed.shape[1], columns)
    codes = unpack_bits(packed, bits, columns) - 2 ** (bits - 1)
    zero_name = f"{name}.weight_zero_point"
    if zero_name in model and model.info(zero_name).dtype == torch.int32:
        zero = unpack_bits(model.tensor(zero_name).t(), bits, rows).t() - 2 ** (bits - 1)
        return _spread(codes - zero.repeat_interleave(columns // zero.shape[1], dim=1), scale)
    return _spread(_minus_zero(model, name, codes), scale)


def _minus_zero(model: ModelFolder, name: str, codes: torch.Tensor) -> torch.Tensor:
    zero_name = f"{name}.weight_zero_point"
    return codes - model.tensor(zero_name).long() if zero_name in model else codes


def _spread(steps: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    if scale.dim() == 2 and scale.shape[1] > 1:
        scale = scale.repeat_interleave(steps.shape[1] // scale.shape[1], dim=1)
    return steps.to(scale.dtype) * scale


def _bits(config: dict[str, Any], words: int, columns: int) -> int:
    """The width among the config's that fills so many words; widths that do so alike must be told apart."""
    widths = {group["weights"]["num_bits"] for group in config["config_groups"].values()}
    fits = [bits for bits in widths if -(-columns * bits // 32) == words]
    if len(fits) != 1:
        raise ModelError("packed width fits no one bit width", value=words, limit=f"{columns} columns of {widths}")
    return int(fits[0])
