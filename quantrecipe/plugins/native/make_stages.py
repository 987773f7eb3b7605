"""The stages that a recipe plugs in, made from what is registered."""

from __future__ import annotations

from quantrecipe.errors import BackendError
from quantrecipe.plugins.contract import Job
from quantrecipe.plugins.native import compensation, transforms
from quantrecipe.plugins.native.stages import COMPENSATIONS, TRANSFORMS, TUNINGS, Compensation, Stages, Transform
from quantrecipe.recipe_transforms import Compensation as CompensationPart
from quantrecipe.recipe_transforms import Transform as TransformPart


def make_stages(job: Job) -> Stages:
    """Transforms, compensation and whole-block methods of the job. Raises BackendError where one is unknown."""
    quantization = job.recipe.quantization
    methods = [module.group.method for module in job.plan.quantized if module.group is not None]
    given = quantization.compensation
    return Stages(
        transforms=tuple(_transform(one) for one in quantization.transforms),
        compensation=None if given is None else _compensation(given),
        tunings={method.name: TUNINGS[method.name](method) for method in methods if method.name in TUNINGS},
    )


def _transform(part: TransformPart) -> Transform:
    known = transforms.BUILT_IN | TRANSFORMS
    if part.name not in known:
        raise BackendError("the native backend has no such transform", value=part.name, limit=", ".join(known))
    return known[part.name](part)


def _compensation(part: CompensationPart) -> Compensation:
    known = compensation.BUILT_IN | COMPENSATIONS
    if part.name not in known:
        raise BackendError("the native backend has no such compensation", value=part.name, limit=", ".join(known))
    return known[part.name](part)
