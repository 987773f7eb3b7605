"""A quantized folder as a model of transformers with dequantized weights, by the readers of modeling/formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantrecipe.modeling.adapter import attach_adapter
from quantrecipe.modeling.experts import DOWN, expert_layouts, fuse
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import quantization_config, reader_of
from quantrecipe.modeling.skeleton import is_transposed


def load(folder: Path, device: str, dtype: torch.dtype | None = None) -> nn.Module:
    """The model, dequantized, its adapter applied, in ``dtype`` or as its config says. Raises ModelError."""
    import transformers

    factory: Any = transformers.AutoModelForCausalLM
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        empty = factory.from_config(config)
    transposed = {name for name, module in empty.named_modules() if is_transposed(module)}
    state = _dense(folder, transposed)
    for path, layout in expert_layouts(empty).items():
        if f"{path}.0.{DOWN}.weight" in state:  # written one by one, though the library knows them fused only
            fuse(layout, path, state)
    model: Any = type(empty).from_pretrained(None, config=config, state_dict=state, dtype=dtype or config.dtype)
    attach_adapter(model, folder)
    return model.to(device).eval()  # type: ignore[no-any-return]


def _dense(folder: Path, transposed: set[str]) -> dict[str, torch.Tensor]:
    """The state dict with every quantized matrix dequantized under ``<module>.weight``."""
    stored = ModelFolder.open(folder)
    if not quantization_config(stored.config, folder):
        return {name: stored.tensor(name) for name in stored.names}
    reader = reader_of(stored)
    modules = reader.modules(stored)
    parts = {part for module in modules for part in reader.parts(stored, module)}
    state = {name: stored.tensor(name) for name in stored.names if name not in parts}
    for module in modules:
        weight = reader.decode(stored, module).weight()
        state[f"{module}.weight"] = weight.t().contiguous() if module in transposed else weight
    return state
