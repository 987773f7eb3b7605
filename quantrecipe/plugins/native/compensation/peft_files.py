"""The two files of a LoRA adapter as peft writes them, which vLLM's LoRA reads too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from quantrecipe.modeling.adapter import ADAPTER, CONFIG, PREFIX, WEIGHTS
from quantrecipe.modeling.files import fsync, make_folder
from quantrecipe.modeling.tensor_file import of_tensor, write_tensor_file
from quantrecipe.modeling.writer import write_json


def write_adapter(folder: Path, rank: int, tensors: Mapping[str, torch.Tensor]) -> None:
    """tensors: ``<module>.lora_A.weight`` [r, K] and ``<module>.lora_B.weight`` [N, r] of every adapted module."""
    place = make_folder(folder / ADAPTER)
    modules = sorted({name.removesuffix(".lora_A.weight") for name in tensors if name.endswith(".lora_A.weight")})
    write_tensor_file(place / WEIGHTS, (of_tensor(f"{PREFIX}{name}", tensor) for name, tensor in tensors.items()))
    write_json(place / CONFIG, adapter_config(rank, modules))
    fsync(place)


def adapter_config(rank: int, modules: Iterable[str]) -> dict[str, Any]:
    """adapter_config.json. lora_alpha = r, so that the factors count as they are.

    target_modules are full names, as not every layer of one kind need be quantized; vLLM looks at the tensors' names.
    """
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": list(modules),
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }
