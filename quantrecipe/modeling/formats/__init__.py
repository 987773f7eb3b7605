"""Readers of quantized checkpoints, ours or not: one module a format, written apart from every writer.

A new format is a new module with a class like the others, and an entry in ``READERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats.awq import AwqReader
from quantrecipe.modeling.formats.bitsandbytes import bitsandbytes_reader
from quantrecipe.modeling.formats.compressed_tensors import CompressedTensorsReader
from quantrecipe.modeling.formats.decoded import Decoded
from quantrecipe.modeling.formats.gptq import GptqReader
from quantrecipe.modeling.formats.own import OwnReader
from quantrecipe.modeling.formats.reader import Reader
from quantrecipe.modeling.formats.settings import quantization_config

#: By ``quant_method`` of the config.
READERS: dict[str, Callable[[Mapping[str, Any]], Reader]] = {
    "compressed-tensors": CompressedTensorsReader,
    "gptq": GptqReader,
    "gptqmodel": GptqReader,
    "awq": AwqReader,
    "bitsandbytes": bitsandbytes_reader,
    "quantrecipe": OwnReader,
}

_TELLING = {
    "config_groups": "compressed-tensors",
    "w_bit": "awq",
    "zero_point": "awq",
    "desc_act": "gptq",
    "load_in_4bit": "bitsandbytes",
    "load_in_8bit": "bitsandbytes",
}

__all__ = ["READERS", "Decoded", "Reader", "method_of", "quantization_config", "read_dequantized", "reader_of"]


def method_of(config: Mapping[str, Any]) -> str:
    """The ``quant_method``; older GPTQ, AWQ and bitsandbytes files leave it out, but not what only they have."""
    method = config.get("quant_method")
    if isinstance(method, str):
        return method
    return next((name for key, name in _TELLING.items() if key in config), "none")


def reader_of(folder: ModelFolder) -> Reader:
    """The reader for what the folder's config claims. Raises ModelError."""
    config = quantization_config(folder.config, folder.path)
    if not config:
        raise ModelError("the model is not quantized", value=str(folder.path), limit="it has no quantization_config")
    method = method_of(config)
    if method not in READERS:
        raise ModelError("no reader for this quant_method", value=method[:60], limit=", ".join(READERS))
    return READERS[method](config)


def read_dequantized(folder: Path, name: str) -> torch.Tensor:
    """The weight [N, K] of a module, in the dtype that its format multiplies in. Raises ModelError."""
    model = ModelFolder.open(folder)
    return reader_of(model).decode(model, name).weight()
