"""The stages that a recipe plugs in, made from what is registered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from quantrecipe.errors import BackendError
from quantrecipe.plugins.contract import Job
from quantrecipe.plugins.native import compensation, transforms, tuning
from quantrecipe.plugins.native.stages import (
    COMPENSATIONS,
    TRANSFORMS,
    TUNINGS,
    Compensation,
    Stages,
    Transform,
    Tuning,
)
from quantrecipe.recipe import Method
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
        tunings=dict(_tunings(methods)),
    )


def _tunings(methods: Iterable[Method]) -> Iterator[tuple[str, Tuning]]:
    """One a name. Layers of a block are tuned together, so that groups cannot differ in how."""
    known, first = tuning.BUILT_IN | TUNINGS, dict[str, Method]()
    for method in methods:
        if method.name in known and first.setdefault(method.name, method) != method:
            raise BackendError(
                "groups give one method unlike options", value=method.name, remedy="give them the same"
            )
    return ((name, known[name](method)) for name, method in first.items())


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
