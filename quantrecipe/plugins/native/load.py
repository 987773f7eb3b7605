"""A quantized folder as a model of transformers with dequantized weights, by the reader of unpack.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.plugins.native.formats.unpack import quantization_config, read_dequantized
from quantrecipe.plugins.native.linear import is_transposed

#: Tensors that stand for a matrix beside the one that names it.
PARTS = ("qweight", "qzeros", "scales", "g_idx", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape")


def load(folder: Path, device: str, dtype: torch.dtype | None = None) -> nn.Module:
    """The model, dequantized, in ``dtype`` or as its config says. Raises ModelError."""
    import transformers

    factory: Any = transformers.AutoModelForCausalLM
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        empty = factory.from_config(config)
    transposed = {name for name, module in empty.named_modules() if is_transposed(module)}
    state = _dense(folder, transposed)
    model: Any = type(empty).from_pretrained(None, config=config, state_dict=state, dtype=dtype or config.dtype)
    return model.to(device).eval()  # type: ignore[no-any-return]


def _dense(folder: Path, transposed: set[str]) -> dict[str, torch.Tensor]:
    """The state dict with every quantized matrix dequantized under ``<module>.weight``."""
    stored = ModelFolder.open(folder)
    names = {name.rpartition(".")[0] for name in stored.names if name.endswith((".scales", ".weight_scale"))}
    names = names if quantization_config(stored.config, folder) else set()
    state = {name: stored.tensor(name) for name in stored.names if not _is_part(name, names)}
    for name in names:
        weight = read_dequantized(folder, name)
        state[f"{name}.weight"] = weight.t().contiguous() if name in transposed else weight
    return state


def _is_part(name: str, quantized: set[str]) -> bool:
    module, _, last = name.rpartition(".")
    return module in quantized and last in (*PARTS, "weight")
