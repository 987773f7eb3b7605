"""ZeroQuant's layer-by-layer distillation (Yao et al., arXiv:2206.01861, section 4.3, equation 4), block by block.

A block's matrices are learned so that the block, quantized, gives what the original block gave. L_LKD is the mean
squared error of its outputs; rounding is differentiated straight through, scales are found anew at every step. In
zq-local a block is fed the original network's hidden states, in zq-global those of the quantized blocks before it
(ZeroQuant-V2, arXiv:2303.08302, whose names these are). What is kept is what does best on windows that were not
learned from; rounding to nearest, where it starts, is among the candidates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import torch

from quantrecipe.errors import BackendError
from quantrecipe.plugins.contract import LayerRecord
from quantrecipe.plugins.native.layers import Layer, check_finite, record_of
from quantrecipe.plugins.native.linear import get_weight, set_weight
from quantrecipe.plugins.native.qparams import Matrix
from quantrecipe.plugins.native.stages import Block, Side, Tuning
from quantrecipe.plugins.native.tuning.static import find_static_scales
from quantrecipe.plugins.native.tuning.student import Matrices, Student
from quantrecipe.recipe_methods import ZqGlobalMethod, ZqLocalMethod

#: One batch in so many is not learned from but chosen by.
HELD_BACK = 8
#: The student is judged so many times; after so many without a gain it stops.
JUDGEMENTS, PATIENCE = 10, 3

Pair = tuple[torch.Tensor, torch.Tensor]


class Pairs:
    """Hidden states [batch, length, hidden] in front of a block, and what the original block made of its own."""

    def __init__(self, inputs: Sequence[torch.Tensor], targets: Sequence[torch.Tensor], name: str, seed: int) -> None:
        count = len(inputs)
        if count < 2:
            raise BackendError(
                "zq-local and zq-global learn from one batch of calibration text and choose by another",
                value=f"{count} batch",
                limit="at least 2 of 2,048 tokens",
                remedy="raise calibration.samples",
            )
        self._inputs, self._targets = inputs, targets
        number = int.from_bytes(sha256(f"{seed}:{name}".encode()).digest()[:8], "little") >> 1
        self._generator = torch.Generator().manual_seed(number)
        order: list[int] = torch.randperm(count, generator=self._generator).tolist()
        held = max(1, count // HELD_BACK)
        self._held, self._learned = order[:held], order[held:]

    def held_back(self) -> Iterator[Pair]:
        """What students are judged by."""
        return (self._pair(index) for index in self._held)

    def endless(self) -> Iterator[Pair]:
        """What they learn from, over and over, in a new order each time."""
        while True:
            for place in torch.randperm(len(self._learned), generator=self._generator).tolist():
                yield self._pair(self._learned[place])

    def _pair(self, index: int) -> Pair:
        return self._inputs[index], self._targets[index]


@dataclass(frozen=True, slots=True)
class Choice:
    """The best matrices found, their mean squared error at the block's output, and that of the start."""

    matrices: Matrices
    error: float
    start: float


class ZeroQuant(Tuning):
    """Both kinds; ``name`` says which."""

    def __init__(self, method: ZqLocalMethod | ZqGlobalMethod) -> None:
        self.method, self.name = method, method.name
        self.side: Side = "original" if isinstance(method, ZqLocalMethod) else "quantized"
        self.inputs: frozenset[Side] = frozenset({"original", self.side})

    def tune(self, block: Block, layers: Sequence[Layer], put: Callable[[Layer, Matrix, LayerRecord], None]) -> None:
        """Learn the block's matrices; they go into its modules, and to ``put``."""
        began = time.perf_counter()
        for layer in layers:
            check_finite(get_weight(layer.module), layer.name)
        find_static_scales(block, layers, block.inputs[self.side])
        pairs = Pairs(block.inputs[self.side], block.targets, block.name, self.method.seed)
        student = Student(layers, block.storage)
        found = distil(student, pairs, block.run, self.method)
        seconds = (time.perf_counter() - began) / len(layers)
        share = found.error / found.start if found.start else 1.0
        note = f"held-back error of the block {share:.3f} of rounding to nearest's"
        for layer in layers:
            matrix, before = found.matrices[layer.name], get_weight(layer.module)
            served = student.served(layer.name, matrix)
            set_weight(layer.module, served)
            put(layer, matrix, replace(record_of(layer, before, matrix, served, seconds), note=note))


def distil(
    student: Student,
    pairs: Pairs,
    run: Callable[[torch.Tensor], torch.Tensor],
    method: ZqLocalMethod | ZqGlobalMethod,
) -> Choice:
    """At most ``method.steps`` of Adam, its rate falling to 0; the best of the start and ten students on the way."""
    best = student.rounded()
    start = least = judge(student, best, pairs, run)
    if start == 0:
        return Choice(best, 0.0, 0.0)
    optimizer = torch.optim.Adam([{"params": [w], "lr": rate} for w, rate in rates(student, best, method)])
    fading = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / method.steps)
    every, idle, source = max(1, method.steps // JUDGEMENTS), 0, pairs.endless()
    for step in range(1, method.steps + 1):
        learn(student, source, run, method.batch, start)
        optimizer.step()
        optimizer.zero_grad()
        fading.step()
        if step % every and step != method.steps:
            continue
        found = student.rounded()
        error = judge(student, found, pairs, run)
        best, least, idle = (found, error, 0) if error < least else (best, least, idle + 1)
        if idle == PATIENCE:
            break
    return Choice(best, least, start)


def rates(
    student: Student, matrices: Matrices, method: ZqLocalMethod | ZqGlobalMethod
) -> Iterator[tuple[torch.Tensor, float]]:
    """Each weight and its learning rate. A grid's step is sqrt(12) times the error that rounding to it leaves."""
    for name, weight in student.weights.items():
        error = weight.detach() - student.served(name, matrices[name]).float()
        yield weight, method.learning_rate * float(error.square().mean().sqrt()) * 12**0.5


def learn(
    student: Student,
    source: Iterator[Pair],
    run: Callable[[torch.Tensor], torch.Tensor],
    windows: int,
    start: float,
) -> None:
    """Add to the weights' gradients what at least so many windows say. start: an error that losses are measured by.

    A loss is summed, not averaged, and relative to ``start``, so that no gradient is too small for fp16 or Adam.
    """
    seen = 0
    while seen < windows:
        hidden, target = next(source)
        with torch.enable_grad(), student.shown(student.rounded()):
            loss = (run(hidden).float() - target.float()).square().sum() / start
            loss.backward()  # type: ignore[no-untyped-call]
        seen += len(hidden)


def judge(student: Student, matrices: Matrices, pairs: Pairs, run: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Mean squared error at the block's output over the windows that are held back."""
    lost, count = 0.0, 0
    with torch.no_grad(), student.shown(matrices):
        for hidden, target in pairs.held_back():
            lost += float((run(hidden).float() - target.float()).square().sum(dtype=torch.float64))
            count += target.numel()
    return lost / max(count, 1)
