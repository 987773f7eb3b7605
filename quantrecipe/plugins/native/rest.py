"""What lies outside the blocks: tensors that stay as they are, the tied head once more, the configs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from quantrecipe.modeling.experts import experts_of
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.writer import ShardWriter, write_json
from quantrecipe.plugins.contract import Job
from quantrecipe.plugins.native.block import Naming
from quantrecipe.plugins.native.stages import Stages


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
        elif stored not in replaced:
            writer.add(naming.unchanged(stored), folder.tensor(stored))
    _write_tied_head(skeleton, naming, writer)


def _write_tied_head(skeleton: Skeleton, naming: Naming, writer: ShardWriter) -> None:
    """The tied head once more, where files of this format hold it."""
    parameter = f"{skeleton.head}.weight"
    tied = any(info.is_head and info.is_tied for info in skeleton.linears())
    if naming.format.unties and tied and parameter not in skeleton.folder:
        writer.add(parameter, skeleton.folder.tensor(skeleton.stored_name(parameter)))


def write_configs(job: Job, original: dict[str, Any], naming: Naming, stages: Stages) -> None:
    """config.json with the quantization and what transforms need, and the format's own files."""
    config = dict(original)
    for transform in stages.transforms:
        config |= transform.config()
    config["quantization_config"] = naming.format.config(job.plan)
    write_json(job.output_path / "config.json", config)
    for name, data in naming.format.extra_files(job.plan).items():
        write_json(job.output_path / name, data)
