"""What was learned as a model folder of its own, in the original's types, which the native backend then quantizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from quantrecipe.modeling.files import copy_file, make_folder, remove
from quantrecipe.modeling.writer import ShardWriter, write_json
from quantrecipe.plugins.contract import Checkpoint, Job
from quantrecipe.plugins.native.run import quantize as quantize_natively
from quantrecipe.plugins.training.models import Subject


def write_trained(subject: Subject, learned: Mapping[str, torch.Tensor], place: Path) -> None:
    """Write the model with these parameters, by their names, in the place of the original's."""
    remove(place)
    make_folder(place)
    original = subject.skeleton.folder
    by_stored = {subject.skeleton.stored_name(name): value for name, value in learned.items()}
    writer = ShardWriter(place)
    for stored in original.names:
        info = original.info(stored)
        if stored in by_stored:
            writer.add(stored, by_stored[stored].to(info.dtype))
        else:
            writer.copy(stored, original.path / info.file, stored)
    writer.close()
    write_json(place / "config.json", original.config)
    for path in sorted(original.path.glob("*.py")):
        copy_file(path, place / path.name)


def convert(job: Job, scratch: Path, details: dict[str, Any]) -> Checkpoint:
    """The checkpoint of the model in ``scratch / "model"``."""
    made = quantize_natively(replace(job, model_path=scratch / "model", scratch=scratch))
    return replace(made, details={**made.details, **details})
