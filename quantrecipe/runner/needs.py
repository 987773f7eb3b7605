"""Bytes of memory and disk that a run will take, counted from shapes before any weight is read."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from quantrecipe.errors import OutputError, QuantRecipeError
from quantrecipe.modeling.plan import Plan, PlannedModule
from quantrecipe.recipe import Recipe
from quantrecipe.recipe_transforms import HadamardTransform, LorcCompensation
from quantrecipe.runner.meter import available_memory
from quantrecipe.runner.needs_training import adapter_bytes
from quantrecipe.units import format_bytes

#: Resident after importing torch and transformers, measured with 2.13 and 5.17 on a CPU.
RUNTIME_BYTES = 550 * 10**6
#: What a data-free run holds until it is full (native/straight.py).
SHARD_BYTES = 128 * 10**6
#: What is written beside the weights: tokenizer, config, report.
EXTRA_BYTES = 20 * 10**6
#: Tokens of one batch on its way through a block.
BATCH_TOKENS = 2048
#: Of a weight while it is learned: itself, its gradient and two moments in fp32, and the codes of two candidates.
LEARNED_BYTES = 4 * 4 + 2 * 3
#: Share of the free memory that a run may plan with, as its needs are estimates.
ROOM = 0.8

Spill = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class Needs:
    """Lines of what is needed, in bytes. weights_after: as written. scratch: what lies beside it meanwhile.

    spills: calibration activations live in files, one batch in memory at a time.
    """

    weights_before: int
    weights_after: int
    memory: dict[str, int] = field(default_factory=dict)
    scratch: int = 0
    spills: bool = False

    @property
    def disk(self) -> int:
        """Bytes on disk at the most."""
        return self.weights_after + self.scratch + EXTRA_BYTES

    @property
    def total_memory(self) -> int:
        """Sum of the lines."""
        return sum(self.memory.values())


@dataclass(frozen=True, slots=True)
class Sizes:
    """What ``count_needs`` counts with. itemsize: bytes a stored number; hidden: width of the residual stream.

    computed: bytes a number that blocks compute in (fp32 for fp16 models on a CPU); None = as stored.
    beside: bytes that are written in addition to the model's own tensors. training: lines of memory of a training.
    """

    itemsize: int
    hidden: int
    calibration_tokens: int
    streams: bool = True
    spills: bool = False
    beside: int = 0
    training: dict[str, int] | None = None
    computed: int | None = None

    @property
    def in_memory(self) -> int:
        """Bytes of a number on its way through a block."""
        return self.computed or self.itemsize


def beside(recipe: Recipe, plan: Plan, itemsize: int) -> int:
    """Bytes that transforms and a compensation add to the files: an untied head, the factors of low-rank errors."""
    quantization, added = recipe.quantization, 0
    if any(isinstance(part, HadamardTransform) for part in quantization.transforms):
        added += sum(
            _dense(module, itemsize) for module in plan.modules if module.info.is_head and module.info.is_tied
        )
    if isinstance(quantization.compensation, LorcCompensation):
        adapted = [module.info for module in plan.quantized if module.info.block is not None]
        added += sum(quantization.compensation.rank * (one.rows + one.columns) * itemsize for one in adapted)
    return added + adapter_bytes(plan, quantization.training, itemsize)


def count_needs(plan: Plan, weights_before: int, sizes: Sizes) -> Needs:
    """Memory of quantizing, line by line: the largest block, the method's workspace, the activations."""
    blocks: dict[int | None, int] = {}
    for module in plan.modules:
        blocks[module.info.block] = blocks.get(module.info.block, 0) + _dense(module, sizes.in_memory)
    outside = blocks.pop(None, 0)
    largest = max(blocks.values(), default=0)
    memory = {"python, torch, transformers": RUNTIME_BYTES}
    if sizes.training is not None:
        memory |= sizes.training
    elif not sizes.streams:
        memory["the whole model"] = weights_before
    elif _is_straight(plan):
        memory["a shard, and matrices under way"] = SHARD_BYTES + 4 * max(_weights(one) for one in plan.quantized)
    else:
        memory["largest block, twice (weights and their replacement)"] = 2 * largest
        memory["the matrix under way (fp32, and its codes)"] = 5 * max(_weights(one) for one in plan.quantized)
        memory["embeddings and head"] = outside if plan.needs_calibration else 0
    if plan.needs_calibration and sizes.training is None:
        memory["Hessian, its factor in it (K x K, fp32)"] = max(_hessian(module) for module in plan.quantized)
        memory |= _activations(plan, sizes) | _distillation(plan, sizes)
    saved = sum(_dense(module, sizes.itemsize) - (module.packed_bytes or 0) for module in plan.quantized)
    kept = {name: size for name, size in memory.items() if size}
    scratch = sum(module.packed_bytes or 0 for module in plan.quantized)
    scratch += 2 * sizes.calibration_tokens * sizes.hidden * sizes.in_memory
    return Needs(weights_before, weights_before - saved + sizes.beside, kept, scratch, sizes.spills)


def _is_straight(plan: Plan) -> bool:
    """Whether weights go straight from file to file (native/straight.py): codes and words of two matrices at once."""
    groups = [module.group for module in plan.quantized if module.group is not None]
    return not plan.needs_calibration and not any(group.input_activations for group in groups)


def _weights(module: PlannedModule) -> int:
    return module.info.rows * module.info.columns


def _activations(plan: Plan, sizes: Sizes) -> dict[str, int]:
    """Hidden states in front of a block and behind it, and what its widest layers hold of the batches in flight.

    Inside a block a batch holds the residual and, where it is widest, three tensors of the MLP's width (a gate, what
    it gates, their product). All batches are in flight together, or one where activations are spilled.
    """
    widest = max(max(one.info.rows, one.info.columns) for one in plan.modules if one.info.block is not None)
    tokens = min(sizes.calibration_tokens, BATCH_TOKENS) if sizes.spills else sizes.calibration_tokens
    return {
        "calibration activations between blocks": 2 * tokens * sizes.hidden * sizes.in_memory,
        "calibration activations inside a block": tokens * (sizes.hidden + 3 * widest) * sizes.in_memory,
    }


def _distillation(plan: Plan, sizes: Sizes) -> dict[str, int]:
    """What learning a block's matrices takes (native/tuning): the weights, Adam's state, what a batch leaves behind.

    The original network's hidden states go beside the quantized one's.
    """
    learned: dict[int | None, int] = {}
    for module in plan.quantized:
        if module.group is not None and module.group.method.needs == "block outputs":
            learned[module.info.block] = learned.get(module.info.block, 0) + _weights(module)
    if not learned:
        return {}
    inside = [module.info for module in plan.modules if module.info.block is not None]
    per_token = 4 * sum(one.rows + one.columns for one in inside if one.block == inside[0].block)
    tokens = BATCH_TOKENS if sizes.spills else 2 * sizes.calibration_tokens
    return {
        "learned weights, gradients, Adam's moments, codes": LEARNED_BYTES * max(learned.values()),
        "one batch's graph inside a block": BATCH_TOKENS * per_token,
        "the original network's activations": tokens * sizes.hidden * sizes.in_memory,
    }


def _dense(module: PlannedModule, itemsize: int) -> int:
    return module.info.rows * module.info.columns * itemsize


def _hessian(module: PlannedModule) -> int:
    looks = module.group is not None and module.group.method.needs == "inputs"
    return 0 if not looks else module.info.columns**2 * 4


def check_disk(needs: Needs, output: Path) -> None:
    """Raises OutputError where the output's file system has too little room; names both sizes."""
    place = next(parent for parent in (output, *output.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needs.disk:
        raise OutputError(
            f"no space for the checkpoint: it needs {format_bytes(needs.disk)} and {place} has {format_bytes(free)}",
            remedy="free space or choose another output",
        )


def fits(needs: Needs, device: str) -> bool:
    """Whether the run fits the free memory with room to spare; True where that is not known."""
    free = available_memory() if device == "cpu" else None
    return free is None or needs.total_memory <= ROOM * free


def check_memory(needs: Needs, device: str) -> None:
    """Raises QuantRecipeError where the machine has less memory free than the run needs."""
    free = available_memory() if device == "cpu" else None
    if free is not None and free < needs.total_memory:
        raise QuantRecipeError(
            f"not enough memory: quantizing needs about {format_bytes(needs.total_memory)} "
            f"and {format_bytes(free)} are free",
            remedy="fewer calibration samples, a shorter sequence_length, method rtn, or a smaller training.batch",
        )
