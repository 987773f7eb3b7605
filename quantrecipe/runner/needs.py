"""Bytes of memory and disk that a run will take, counted from shapes before any weight is read."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from quantrecipe.errors import OutputError, QuantRecipeError
from quantrecipe.modeling.plan import Plan, PlannedModule
from quantrecipe.runner.meter import available_memory
from quantrecipe.units import format_bytes

#: Resident after importing torch and transformers, measured with 2.13 and 5.17 on a CPU.
RUNTIME_BYTES = 550 * 10**6
#: What is written beside the weights: tokenizer, config, report.
EXTRA_BYTES = 20 * 10**6


@dataclass(frozen=True, slots=True)
class Needs:
    """Lines of what is needed, in bytes. weights_after: as written. disk: with everything beside it."""

    weights_before: int
    weights_after: int
    memory: dict[str, int] = field(default_factory=dict)

    @property
    def disk(self) -> int:
        """Bytes on disk."""
        return self.weights_after + EXTRA_BYTES

    @property
    def total_memory(self) -> int:
        """Sum of the lines."""
        return sum(self.memory.values())


@dataclass(frozen=True, slots=True)
class Sizes:
    """What ``count_needs`` counts with. itemsize: bytes a stored number; hidden: width of the residual stream."""

    itemsize: int
    hidden: int
    calibration_tokens: int
    streams: bool = True


def count_needs(plan: Plan, weights_before: int, sizes: Sizes) -> Needs:
    """Memory of quantizing, line by line: the largest block, the method's workspace, the activations."""
    blocks: dict[int | None, int] = {}
    for module in plan.modules:
        blocks[module.info.block] = blocks.get(module.info.block, 0) + _dense(module, sizes.itemsize)
    outside = blocks.pop(None, 0)
    largest = max(blocks.values(), default=0)
    memory = {"python, torch, transformers": RUNTIME_BYTES}
    if not sizes.streams:
        memory["the whole model"] = weights_before
    else:
        memory["largest block, twice (weights and their replacement)"] = 2 * largest
        memory["embeddings and head"] = outside if plan.needs_calibration else 0
    if plan.needs_calibration:
        memory["Hessian and its factor (K x K, fp32)"] = 2 * max(_hessian(module) for module in plan.quantized)
        memory["calibration activations"] = sizes.calibration_tokens * sizes.hidden * sizes.itemsize
    saved = sum(_dense(module, sizes.itemsize) - (module.packed_bytes or 0) for module in plan.quantized)
    kept = {name: size for name, size in memory.items() if size}
    return Needs(weights_before, weights_before - saved, kept)


def _dense(module: PlannedModule, itemsize: int) -> int:
    return module.info.rows * module.info.columns * itemsize


def _hessian(module: PlannedModule) -> int:
    rtn = module.group is None or module.group.method.name == "rtn"
    return 0 if rtn else module.info.columns**2 * 4


def check_disk(needs: Needs, output: Path) -> None:
    """Raises OutputError where the output's file system has too little room; names both sizes."""
    place = next(parent for parent in (output, *output.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needs.disk:
        raise OutputError(
            f"no space for the checkpoint: it needs {format_bytes(needs.disk)} and {place} has {format_bytes(free)}",
            remedy="free space or choose another output",
        )


def check_memory(needs: Needs, device: str) -> None:
    """Raises QuantRecipeError where the machine has less memory free than the run needs."""
    free = available_memory() if device == "cpu" else None
    if free is not None and free < needs.total_memory:
        raise QuantRecipeError(
            f"not enough memory: quantizing needs about {format_bytes(needs.total_memory)} "
            f"and {format_bytes(free)} are free",
            remedy="fewer calibration samples, a shorter sequence_length, or method rtn",
        )
