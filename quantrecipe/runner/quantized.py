"""A saved quantized checkpoint seen as plain weights, through a reader written apart from the writer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantrecipe.errors import DamageError
from quantrecipe.modeling.dequantized import DequantizedFolder
from quantrecipe.modeling.plan import Plan
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.native.activations import Rounding, apply_scheme
from quantrecipe.plugins.native.kv_cache import (
    KeyValueRounding,
    apply_kv_scheme,
    cached_attention,
    seen_by_transformers,
)
from quantrecipe.plugins.native.rounding import Fixed
from quantrecipe.schemes import QuantizationArgs


def open_dequantized(
    path: Path, dtype: torch.dtype | None, trust_remote_code: bool = False
) -> tuple[DequantizedFolder, Skeleton]:
    """The folder and its architecture, as a loader that computes in ``dtype`` (None = the scales') sees them.

    Raises DamageError where it holds no quantized weights.
    """
    folder = DequantizedFolder.open(path)
    assert isinstance(folder, DequantizedFolder)
    folder.product = dtype
    if not folder.modules:
        raise DamageError("the checkpoint holds no quantized weights", value=str(path))
    skeleton = Skeleton(folder, trust_remote_code)
    for info in skeleton.linears():
        if info.kind == "Conv1D":
            folder.transposed.add(skeleton.stored_module(info.name))
    return folder, skeleton


@dataclass(frozen=True, slots=True)
class Rounded:
    """What a served model rounds as it computes. inputs: by module; kv_cache: keys and values of every layer."""

    inputs: dict[str, QuantizationArgs] = field(default_factory=dict)
    kv_cache: QuantizationArgs | None = None

    @classmethod
    def of(cls, plan: Plan) -> Rounded:
        """What a plan's groups and its KV cache round."""
        groups = {module.name: module.group for module in plan.quantized}
        inputs = {name: one.input_activations for name, one in groups.items() if one and one.input_activations}
        return cls(inputs, plan.kv_cache)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        inputs = {name: args.model_dump() for name, args in self.inputs.items()}
        return {"inputs": inputs, "kv_cache": self.kv_cache.model_dump() if self.kv_cache else None}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Rounded:
        """From what ``to_json`` gave."""
        inputs = {name: QuantizationArgs(**args) for name, args in data["inputs"].items()}
        return cls(inputs, QuantizationArgs(**data["kv_cache"]) if data["kv_cache"] else None)


def round_activations(
    folder: DequantizedFolder, skeleton: Skeleton, rounded: Rounded, as_transformers: bool = False
) -> None:
    """Make the model round what it computes with, for good; static scales come from the folder."""
    for name, args in rounded.inputs.items():
        apply_scheme(skeleton.model.get_submodule(name), input_rounding(folder, name, args), as_transformers)
    for module, cache in cache_rounding(folder, skeleton, rounded.kv_cache):
        if not as_transformers or seen_by_transformers(module):
            apply_kv_scheme(module, cache, as_transformers)


def cache_rounding(
    folder: DequantizedFolder, skeleton: Skeleton, args: QuantizationArgs | None
) -> Iterator[tuple[nn.Module, KeyValueRounding]]:
    """Each attention module and how its keys and values are rounded, static scales read; nothing for None."""
    for block in skeleton.blocks if args is not None else ():
        assert args is not None
        for name, module in cached_attention(block.module).items():
            cache = KeyValueRounding(args)
            if not args.dynamic:
                cache.fixed = {part: static_scale(folder, f"{block.name}.{name}.{part}") for part in ("k", "v")}
            yield module, cache


def input_rounding(folder: DequantizedFolder, name: str, args: QuantizationArgs) -> Rounding:
    """How the inputs of a module are rounded, its static scale read."""
    return Rounding(args, None if args.dynamic else static_scale(folder, f"{name}.input"))


def static_scale(folder: DequantizedFolder, prefix: str) -> Fixed:
    """A static scale and, where there is one, its zero point."""
    zero = f"{prefix}_zero_point"
    return Fixed(
        folder.stored.tensor(f"{prefix}_scale"), folder.stored.tensor(zero) if zero in folder.stored else None
    )
