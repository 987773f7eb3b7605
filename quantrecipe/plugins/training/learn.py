"""The loop: a batch of windows, a loss, a step; a state saved now and then; judged before and after."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from quantrecipe.errors import BackendError
from quantrecipe.plugins.training.models import Subject
from quantrecipe.plugins.training.objective import divergence_from, next_token
from quantrecipe.plugins.training.precision import NUMBERS
from quantrecipe.plugins.training.states import States
from quantrecipe.plugins.training.text import Text
from quantrecipe.plugins.training.trainer import Trainer
from quantrecipe.recipe_training import QatTraining, QloraTraining


class Way(Protocol):
    """A model under training. learned: its parameters that are."""

    model: Any
    learned: dict[str, nn.Parameter]

    def computing(self) -> AbstractContextManager[None]:
        """Within, it computes as it will serve."""


class Learner:
    """One training under way."""

    def __init__(
        self, subject: Subject, way: Way, part: QatTraining | QloraTraining, text: Text, states: States
    ) -> None:
        self.way, self.part, self.text, self.states = way, part, text, states
        self.job = subject.job
        self.numbers = NUMBERS[part.precision]
        device = self.job.device
        self.trainer = Trainer(way.learned, self.numbers, part.steps, part.learning_rate, device)
        original = subject.model(self.numbers.weights) if part.objective == "original" else None
        self.objective = next_token if original is None else divergence_from(original)

    def learn(self) -> None:
        """All steps that are left; what was learned is kept in ``states``. Raises BackendError where it diverges."""
        self.job.progress.start("train", self.part.steps, "steps")
        begun, before = self._begin()
        for step in range(begun, self.part.steps):
            loss = self.trainer.step(step, partial(self._loss, self.text.batch(step, self.part.batch)))
            self._check(step, loss)
            self.job.progress.advance(1, loss=f"{loss:.4f}")
            tensors, scaling = self.trainer.state()
            self.states.save(step + 1, tensors, {"scaling": scaling, "before": before})
        after = self._judge()
        self._check(self.part.steps - 1, after)
        note = (
            f"{self.part.name} ({self.part.precision}, {self.part.steps} steps): loss on held-back windows "
            f"{before:.4f} before, {after:.4f} after"
        )
        self.job.progress.note(note)
        learned = {name: master.detach() for name, master in self.trainer.masters.items()}
        self.states.keep_learned(learned, note)

    def _begin(self) -> tuple[int, float]:
        """The step to go on at, and the held-back loss before the first one."""
        found = self.states.latest()
        if found is None:
            return 0, self._judge()
        line, tensors = found
        self.trainer.restore(tensors, line["scaling"])
        self.job.progress.note(f"going on behind step {line['step']} of {self.part.steps}")
        self.job.progress.advance(line["step"])
        return int(line["step"]), float(line["before"])

    def _loss(self, tokens: torch.Tensor) -> torch.Tensor:
        with self.way.computing():
            given = tokens.to(self.job.device)
            return self.objective(self.way.model(input_ids=given, use_cache=False).logits, given)

    def _judge(self) -> float:
        """The mean loss on the windows that are held back."""
        with torch.no_grad(), self.numbers.computing(self.job.device):
            losses = [float(self._loss(window.unsqueeze(0))) for window in self.text.held_back]
        return sum(losses) / len(losses)

    def _check(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise BackendError(
                f"training diverged at step {step + 1}",
                value=f"loss {loss}",
                remedy="a lower learning_rate, or precision mixed",
            )
