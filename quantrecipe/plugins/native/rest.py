"""The checkpoint's files: what each block has left, what stays as it is, the tied head once more, configs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from quantrecipe.modeling.experts import experts_of
from quantrecipe.modeling.files import remove
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.writer import ShardWriter, write_json
from quantrecipe.plugins.contract import Job
from quantrecipe.plugins.native.block import Naming
from quantrecipe.plugins.native.scratch import Kept
from quantrecipe.plugins.native.stages import Stages

#: The scratch folder of a job that has none, inside its output.
IN_OUTPUT = ".scratch"


def assemble(job: Job, skeleton: Skeleton, naming: Naming, stages: Stages, kept: Sequence[Kept]) -> None:
    """Copy what is kept, and the rest of the original, into the output folder; nothing is held in memory."""
    for path in job.output_path.iterdir():
        if job.scratch is not None or path.name != IN_OUTPUT:
            remove(path)
    writer = ShardWriter(job.output_path)
    for one in kept:
        for name in one.names():
            writer.copy(name, one.path, name)
    write_unchanged(skeleton, naming, {name for one in kept for name in one.replaced}, writer)
    writer.close()
    write_configs(job, skeleton.folder.config, naming, stages)
    if stages.compensation is not None:
        beside: dict[str, torch.Tensor] = {}
        for one in kept:
            beside |= one.beside_tensors()
        stages.compensation.write(job.output_path, beside)


def write_unchanged(skeleton: Skeleton, naming: Naming, replaced: Collection[str], writer: ShardWriter) -> None:
    """Everything of the original that no artefact stands for, under the name it had; then a tied head.

    Experts that were stored as one tensor, and some of which were quantized, are written one by one.
    """
    folder = skeleton.folder
    apart = {experts_of(name) for name in replaced}
    for stored in folder.names:
        parts = skeleton.fused.get(stored, [])
        if parts and experts_of(parts[0]) in apart:
            for name in parts:
                if name not in replaced:
                    writer.add(name, skeleton.read(name))
        elif stored not in replaced and not folder.is_verbatim(stored):
            writer.add(naming.unchanged(stored), folder.tensor(stored))
        elif stored not in replaced:
            writer.copy(naming.unchanged(stored), folder.path / folder.info(stored).file, stored)
    _write_tied_head(skeleton, naming, writer)


def _write_tied_head(skeleton: Skeleton, naming: Naming, writer: ShardWriter) -> None:
    """The tied head once more, where files of this format hold it."""
    parameter = f"{skeleton.head}.weight"
    tied = any(info.is_head and info.is_tied for info in skeleton.linears())
    if naming.format.unties and tied and parameter not in skeleton.folder:
        stored = skeleton.stored_name(parameter)
        writer.copy(parameter, skeleton.folder.path / skeleton.folder.info(stored).file, stored)


def write_configs(job: Job, original: dict[str, Any], naming: Naming, stages: Stages) -> None:
    """config.json with the quantization and what transforms need, and the format's own files."""
    config = dict(original)
    for transform in stages.transforms:
        config |= transform.config()
    config["quantization_config"] = naming.format.config(job.plan)
    write_json(job.output_path / "config.json", config)
    for name, data in naming.format.extra_files(job.plan).items():
        write_json(job.output_path / name, data)
