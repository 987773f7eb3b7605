"""The tensors of a quantized checkpoint against what its config promises; shapes, scales, true bits a weight."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from quantrecipe.modeling.folder import ModelFolder

SCALES = (".weight_scale", ".scales", ".input_scale", ".k_scale", ".v_scale")
_PARTS = {
    "compressed-tensors": ("weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"),
    "gptq": ("qweight", "qzeros", "scales", "g_idx"),
}
_NEEDED = {"gptq": ("qweight", "qzeros", "scales", "g_idx")}


@dataclass(frozen=True, slots=True)
class PackedModule:
    """A quantized module as stored: weights, and bytes of codes, scales and zero points."""

    name: str
    weights: int
    nbytes: int


def packed_modules(stored: ModelFolder) -> list[PackedModule]:
    """Every module that is stored as codes."""
    method = str(stored.config.get("quantization_config", {}).get("quant_method"))
    marks = (".qweight",) if method == "gptq" else (".weight_packed", ".weight_scale")
    names = sorted({name.removesuffix(mark) for name in stored.names for mark in marks if name.endswith(mark)})
    return [_module(stored, name, method) for name in names]


def _module(stored: ModelFolder, name: str, method: str) -> PackedModule:
    parts = [f"{name}.{part}" for part in (*_PARTS.get(method, ()), "weight") if f"{name}.{part}" in stored]
    return PackedModule(name, _weights(stored, name), sum(stored.info(part).nbytes for part in parts))


def _weights(stored: ModelFolder, name: str) -> int:
    """N x K of the dequantized weight."""
    if f"{name}.weight_shape" in stored:
        return int(stored.tensor(f"{name}.weight_shape").prod())
    if f"{name}.g_idx" in stored:
        return prod(stored.info(f"{name}.g_idx").shape) * stored.info(f"{name}.scales").shape[-1]
    return prod(stored.info(f"{name}.weight").shape) if f"{name}.weight" in stored else 0


def bits_per_weight(modules: list[PackedModule]) -> float | None:
    """True bits of a quantized weight, scales and zero points included; None where nothing is quantized."""
    weights = sum(module.weights for module in modules)
    return 8 * sum(module.nbytes for module in modules) / weights if weights else None


def structure_faults(stored: ModelFolder, modules: list[PackedModule]) -> Iterator[str]:
    """Tensors that a packed module lacks, or whose shapes contradict one another."""
    config: dict[str, Any] = stored.config.get("quantization_config", {})
    if not modules:
        yield "nothing in it is quantized, whatever its config says"
    for module in modules:
        missing = [f"{module.name}.{part}" for part in _NEEDED.get(str(config.get("quant_method")), ())]
        yield from (f"{name} is missing" for name in missing if name not in stored)
        if not module.weights:
            yield f"{module.name} has scales but no codes"
        elif f"{module.name}.weight_packed" in stored:
            yield from _packed_faults(stored, module.name)


def _packed_faults(stored: ModelFolder, name: str) -> Iterator[str]:
    """compressed-tensors: rows of codes, of scales and of the shape must agree."""
    if f"{name}.weight_shape" not in stored or f"{name}.weight_scale" not in stored:
        yield f"{name} lacks its shape or its scales"
        return
    rows, columns = stored.tensor(f"{name}.weight_shape").tolist()
    packed, scale = stored.info(f"{name}.weight_packed").shape, stored.info(f"{name}.weight_scale").shape
    if packed[0] != rows or packed[1] * 32 < 2 * columns:
        yield f"{name} has codes of shape {list(packed)} for a weight of {rows} x {columns}"
    if len(scale) == 2 and (scale[0] != rows or columns % scale[1]):
        yield f"{name} has scales of shape {list(scale)} for a weight of {rows} x {columns}"


def scale_faults(stored: ModelFolder) -> Iterator[str]:
    """Scales that are not finite and positive."""
    for name in stored.names:
        if not name.endswith(SCALES):
            continue
        scale = stored.tensor(name).float()
        if not bool(torch.isfinite(scale).all()):
            yield f"{name} holds NaN or infinity"
        elif not bool((scale > 0).all()):
            yield f"{name} holds scales that are not positive"
