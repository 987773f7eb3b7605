"""A low-rank adapter beside a checkpoint, in peft's layout: read, checked, and computed as peft computes it.

``adapter/adapter_config.json`` and ``adapter/adapter_model.safetensors`` with, for every adapted module,
``base_model.model.<module>.lora_A.weight`` [r, K] and ``lora_B.weight`` [N, r]; y = W x + (alpha / r) B A x.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.utils.hooks import RemovableHandle

from quantrecipe.errors import DamageError

ADAPTER, CONFIG, WEIGHTS = "adapter", "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class Factors:
    """A: [r, K]. B: [N, r]."""

    A: torch.Tensor
    B: torch.Tensor


def has_adapter(checkpoint: Path) -> bool:
    """Whether an adapter lies beside a checkpoint."""
    return (checkpoint / ADAPTER / CONFIG).is_file()


def adapter_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint's adapter by name. Raises DamageError where the file cannot be read."""
    file = checkpoint / ADAPTER / WEIGHTS
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise DamageError("the adapter cannot be read", value=str(file), limit=str(error)) from error


def read_adapter(checkpoint: Path) -> dict[str, Factors]:
    """The factors of each module by its name. Raises DamageError where a pair is incomplete or does not fit."""
    tensors = adapter_tensors(checkpoint)
    found = {}
    for name, A in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        B = tensors.get(name.replace(".lora_A.", ".lora_B."))
        if B is None or A.dim() != 2 or B.dim() != 2 or A.shape[0] != B.shape[1]:
            raise DamageError("the adapter's factors do not belong together", value=name)
        found[name.removeprefix(PREFIX).removesuffix(".lora_A.weight")] = Factors(A, B)
    if 2 * len(found) != len(tensors):
        raise DamageError("the adapter holds tensors that are no factors", value=str(checkpoint / ADAPTER))
    return found


def attach_adapter(model: nn.Module, checkpoint: Path) -> None:
    """Make the model compute with the adapter of its checkpoint, for good; without one nothing happens."""
    if not has_adapter(checkpoint):
        return
    modules = dict(model.named_modules())
    for name, factors in read_adapter(checkpoint).items():
        if name not in modules:
            raise DamageError("the adapter adapts a module that the model lacks", value=name)
        attach(modules[name], factors)


def attach(module: nn.Module, factors: Factors) -> list[RemovableHandle]:
    """Make a linear layer add B A x, in fp32, for the input x as it was before any rounding (peft, vLLM)."""
    raw: list[torch.Tensor] = []
    A, B = factors.A.float(), factors.B.float()

    def keep(_: nn.Module, args: tuple[Any, ...]) -> None:
        raw[:] = [args[0]]

    def add(_: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        x = raw.pop() if raw else args[0]
        low = torch.nn.functional.linear(x.float(), A.to(x.device))
        return (output + torch.nn.functional.linear(low, B.to(x.device))).to(output.dtype)

    return [module.register_forward_pre_hook(keep, prepend=True), module.register_forward_hook(add)]
