"""The stages that a recipe plugs in, made from what is registered."""

from __future__ import annotations

from quantrecipe.errors import BackendError
from quantrecipe.plugins.contract import Job
from quantrecipe.plugins.native.stages import COMPENSATIONS, TRANSFORMS, TUNINGS, Compensation, Stages, Transform


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


def _transform(given: dict[str, object]) -> Transform:
    name = str(given.get("name"))
    if name not in TRANSFORMS:
        raise BackendError(
            "the native backend has no such transform", value=name, limit=", ".join(TRANSFORMS) or "none"
        )
    return TRANSFORMS[name]({key: value for key, value in given.items() if key != "name"})


def _compensation(given: dict[str, object]) -> Compensation:
    name = str(given.get("name"))
    if name not in COMPENSATIONS:
        known = ", ".join(COMPENSATIONS) or "none"
        raise BackendError("the native backend has no such compensation", value=name, limit=known)
    return COMPENSATIONS[name]({key: value for key, value in given.items() if key != "name"})
