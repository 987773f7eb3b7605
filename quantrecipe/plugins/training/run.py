"""A training job: learn, keeping a state to go on from; then have what was learned quantized and written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from quantrecipe.errors import BackendError
from quantrecipe.plugins.contract import Checkpoint, Job
from quantrecipe.plugins.training import qat, qlora
from quantrecipe.plugins.training.learn import Learner
from quantrecipe.plugins.training.models import Subject
from quantrecipe.plugins.training.precision import NUMBERS
from quantrecipe.plugins.training.states import States
from quantrecipe.plugins.training.text import Text
from quantrecipe.recipe_training import QatTraining


@torch.inference_mode(False)
@torch.no_grad()
def quantize(job: Job) -> Checkpoint:
    """Carry the job out. Raises BackendError, ModelError."""
    with _scratch(job) as scratch:
        subject, part = Subject.of(job), job.recipe.quantization.training
        if part is None or job.calibration is None:
            raise BackendError("the recipe has no training", remedy="give quantization.training, or backend native")
        states = States(scratch / "training")
        try:
            if states.learned is None:
                dtype = NUMBERS[part.precision].weights
                way = qat.Qat(subject, dtype) if isinstance(part, QatTraining) else qlora.Qlora(subject, dtype, part)
                Learner(subject, way, part, Text(job.calibration, part.seed), states).learn()
                del way
            else:
                job.progress.note("the last run had learned all; writing it")
            learned, note = states.read_learned()
        finally:
            states.close()
        if isinstance(part, QatTraining):
            made = qat.write(subject, learned, scratch)
        else:
            made = qlora.write(subject, learned, scratch, part)
        return replace(made, notes=(note, *made.notes))


@contextmanager
def _scratch(job: Job) -> Iterator[Path]:
    if job.scratch is not None:
        yield job.scratch
        return
    with tempfile.TemporaryDirectory(dir=job.output_path.parent, prefix=".training-") as folder:
        yield Path(folder)
