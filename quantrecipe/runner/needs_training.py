"""Bytes that training takes: the whole model, what is learned of it four times over, one step's graph."""

from __future__ import annotations

from dataclasses import dataclass

from quantrecipe.modeling.plan import Plan
from quantrecipe.recipe_training import QloraTraining, Training

#: Of a learned number: its fp32 value, gradient and two moments.
LEARNED_BYTES = 16
#: Bytes of a number that the model computes with.
HELD = {"fp32": 4, "bf16": 2, "fp16": 2, "mixed": 4}
#: What autograd keeps of a token in a block, in numbers, for each input and output of its matrices.
KEPT = 3
#: fp32 copies of the logits: theirs, their logarithm, its gradient; with another model's distribution two more.
LOGITS = {"tokens": 4, "original": 6}


@dataclass(frozen=True, slots=True)
class Step:
    """The text of one step and what it meets. parameters: of the model. length: tokens a window."""

    parameters: int
    vocabulary: int
    length: int


def training_memory(plan: Plan, training: Training, step: Step) -> dict[str, int]:
    """Memory of training, line by line."""
    held = HELD[training.precision]
    tokens = training.batch * step.length
    inside = sum(one.info.rows + one.info.columns for one in plan.modules if one.info.block is not None)
    rounded = sum(one.info.rows * one.info.columns for one in plan.quantized)
    learned = step.parameters
    memory = {"the model, in what it computes with": held * step.parameters}
    if isinstance(training, QloraTraining):
        learned = sum(training.rank * (one.info.rows + one.info.columns) for one in plan.quantized)
        memory["the model, frozen and rounded beside it"] = rounded
    else:
        memory["rounded weights of one step"] = held * rounded
    memory["what is learned: values, gradients, Adam's moments"] = LEARNED_BYTES * learned
    if training.objective == "original":
        memory["the original model, to learn from"] = held * step.parameters
    memory[f"one step's graph, {tokens} tokens"] = held * KEPT * tokens * inside
    memory[f"logits of {tokens} tokens, in fp32"] = 4 * LOGITS[training.objective] * tokens * step.vocabulary
    return memory


def adapter_bytes(plan: Plan, training: Training | None, itemsize: int) -> int:
    """Bytes of an adapter that is kept beside the checkpoint."""
    if not isinstance(training, QloraTraining) or training.adapter != "kept":
        return 0
    adapted = [module.info for module in plan.quantized if module.info.block is not None]
    return sum(training.rank * (one.rows + one.columns) * itemsize for one in adapted)
