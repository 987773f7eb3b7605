"""Backends that lie, each about one thing; torch is imported only where a lie says so."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantrecipe.plugins.contract import Availability, Capabilities, Checkpoint, Job
from quantrecipe.plugins.native.backend import NativeBackend

if TYPE_CHECKING:
    from torch import nn


class ImportsItsLibrary(NativeBackend):
    def capabilities(self) -> Capabilities:
        import torch  # noqa: F401

        return super().capabilities()


class HidesItsVersion(NativeBackend):
    def availability(self) -> Availability:
        return Availability(True)


class ClaimsTooLittle(NativeBackend):
    def capabilities(self) -> Capabilities:
        return dataclasses.replace(super().capabilities(), strategies=("tensor",))


class TouchesWhatIsIgnored(NativeBackend):
    def quantize(self, job: Job) -> Checkpoint:
        made = super().quantize(job)
        rewrite(
            made.path,
            lambda name, tensor: tensor * 1.01 if name.endswith("layers.2.mlp.down_proj.weight") else tensor,
        )
        return made


class CountsHalfTheBytes(NativeBackend):
    def quantize(self, job: Job) -> Checkpoint:
        made = super().quantize(job)
        return dataclasses.replace(
            made, layers=tuple(dataclasses.replace(x, bytes=x.bytes // 2) for x in made.layers)
        )


class ReportsNoError(NativeBackend):
    def quantize(self, job: Job) -> Checkpoint:
        made = super().quantize(job)
        return dataclasses.replace(
            made, layers=tuple(dataclasses.replace(x, relative_error=0.0) for x in made.layers)
        )


class LoadsAnotherModel(NativeBackend):
    def load(self, checkpoint: Path, device: str) -> nn.Module:
        import torch

        model: Any = super().load(checkpoint, device)
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight.mul_(1.5)
        return model  # type: ignore[no-any-return]


class TakesFewerBits(NativeBackend):
    def quantize(self, job: Job) -> Checkpoint:
        groups = {"main": {"scheme": "w2a16-g32"}}
        data = job.recipe.model_dump(mode="json", exclude_none=True)
        data["quantization"]["config_groups"] = groups
        recipe = type(job.recipe).model_validate(data)
        from quantrecipe.modeling.folder import ModelFolder
        from quantrecipe.modeling.plan import make_plan
        from quantrecipe.modeling.skeleton import Skeleton

        plan = make_plan(recipe, Skeleton(ModelFolder.open(job.model_path)).linears())
        return super().quantize(dataclasses.replace(job, recipe=recipe, plan=plan))


class DependsOnTheClock(NativeBackend):
    def quantize(self, job: Job) -> Checkpoint:
        import time

        made = super().quantize(job)
        stamp = 1 + time.time_ns() % 1000 * 1e-6
        rewrite(made.path, lambda name, tensor: tensor * stamp if name == "model.norm.weight" else tensor)
        return made


class ShowsTracebacks(NativeBackend):
    def quantize(self, job: Job) -> Checkpoint:
        from quantrecipe.errors import QuantRecipeError

        try:
            return super().quantize(job)
        except QuantRecipeError as error:
            raise ValueError("weights are odd") from error


class NeverComesBack(NativeBackend):
    def quantize(self, job: Job) -> Checkpoint:
        mark = None if job.scratch is None else job.scratch / "was-here"
        if mark is not None and mark.exists():
            raise RuntimeError("I was here before")
        if mark is not None:
            mark.touch()
        return super().quantize(job)


def rewrite(folder: Path, change: Any) -> None:
    """Each tensor of the one weight file changed."""
    from safetensors.torch import load_file, save_file

    path = next(folder.glob("*.safetensors"))
    tensors = {name: change(name, tensor).contiguous() for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})
