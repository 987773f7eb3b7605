"""Bytes that training takes: the whole model, what is learned of it four times over, one step's graph."""

from __future__ import annotations

from dataclasses import dataclass

from quantrecipe.modeling.plan import Plan
from quantrecipe.recipe_training import QloraTraining, Training

#: Of a learned number: its gradient and two moments, in fp32.
LEARNED_BYTES = 12
#: Bytes of a number that the model is held in, and that autograd keeps on the way.
HELD = {"fp32": 4, "bf16": 2, "fp16": 2, "mixed": 4}
GRAPH = {"fp32": 4, "bf16": 2, "fp16": 2, "mixed": 2}
#: Resident beside RUNTIME_BYTES once gradients flow: autograd, peft, what malloc keeps. Measured, as the next three.
AUTOGRAD_BYTES = 180 * 10**6
#: Numbers that autograd keeps of a token for each input and output of a matrix; if inputs are rounded or adapted.
KEPT, KEPT_BESIDE = 1.6, 2.3
#: fp32 copies of the logits at once: theirs, their logarithm, its gradient; two more of another model's.
LOGITS = {"tokens": 3, "original": 5}


@dataclass(frozen=True, slots=True)
class Step:
    """The text of one step and what it meets. parameters: of the model. length: tokens a window."""

    parameters: int
    vocabulary: int
    length: int


def training_memory(plan: Plan, training: Training, step: Step) -> dict[str, int]:
    """Memory of training, line by line, fitted to measured peaks (docs/training.md)."""
    held, tokens = HELD[training.precision], training.batch * step.length
    inside = sum(one.info.rows + one.info.columns for one in plan.modules if one.info.block is not None)
    rounded = sum(one.info.rows * one.info.columns for one in plan.quantized)
    beside = any(one.group is not None and one.group.input_activations is not None for one in plan.quantized)
    memory = {"autograd, peft": AUTOGRAD_BYTES, "the model, in what it computes with": held * step.parameters}
    learned, values = step.parameters, 0 if held == 4 else 4
    if isinstance(training, QloraTraining):
        learned, values = sum(training.rank * (one.info.rows + one.info.columns) for one in plan.quantized), 4
        beside = True
        memory["the model, frozen and rounded beside it"] = rounded
    else:
        memory["rounded weights of one step"] = held * rounded
    memory["what is learned: fp32 values, gradients, Adam's moments"] = (LEARNED_BYTES + values) * learned
    if training.objective == "original":
        memory["the original model, to learn from"] = held * step.parameters
    kept = GRAPH[training.precision] * (KEPT_BESIDE if beside else KEPT)
    memory[f"one step's graph, {tokens} tokens"] = round(kept * tokens * inside)
    memory[f"logits of {tokens} tokens, in fp32"] = 4 * LOGITS[training.objective] * tokens * step.vocabulary
    return memory


def adapter_bytes(plan: Plan, training: Training | None, itemsize: int) -> int:
    """Bytes of an adapter that is kept beside the checkpoint."""
    if not isinstance(training, QloraTraining) or training.adapter != "kept":
        return 0
    adapted = [module.info for module in plan.quantized if module.info.block is not None]
    return sum(training.rank * (one.rows + one.columns) * itemsize for one in adapted)
