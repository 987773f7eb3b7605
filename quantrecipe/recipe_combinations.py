"""Combinations of transforms, schemes and training that make no sense, with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from quantrecipe.recipe_transforms import OtherTransform, Transform

if TYPE_CHECKING:
    from quantrecipe.recipe import Group, Quantization

_SCALES = ("smoothquant", "awq", "outlier-suppression-plus")
_FOR_INPUTS = {
    "smoothquant": "it makes inputs easier to round at the cost of weights",
    "outlier-suppression-plus": "it makes inputs easier to round",
}


def combination_fault(transforms: Sequence[Transform], groups: Iterable[Group], form: str) -> str | None:
    """Why these transforms cannot serve these groups, written in format ``form``; None where they can."""
    groups = list(groups)
    names = [transform.name for transform in transforms if not isinstance(transform, OtherTransform)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        return f"transform {twice!r} is listed twice"
    scales = [name for name in names if name in _SCALES]
    if len(scales) > 1:
        return (
            f"transforms {scales[0]!r} and {scales[1]!r} set the same scales, the later undoing the earlier; keep one"
        )
    if "hadamard" in names[1:]:
        return f"transform 'hadamard' undoes the scales of {names[0]!r} before it; list it first"
    if all(group.input_activations is None for group in groups):
        idle = next((name for name in names if name in _FOR_INPUTS), None)
        if idle:
            return (
                f"transform {idle!r} is senseless here: {_FOR_INPUTS[idle]}, and no group rounds inputs (w8a8 does)"
            )
    return _cluster_fault(groups, form) if "rptq" in names else None


def _cluster_fault(groups: Iterable[Group], form: str) -> str | None:
    """Why RPTQ's scales have no place here."""
    inputs = [group.input_activations for group in groups if group.input_activations is not None]
    if not any(not args.dynamic and args.strategy == "tensor" for args in inputs):
        return (
            "transform 'rptq' is senseless here: it gives clusters of channels static scales of their own; a group "
            "needs input_activations with strategy tensor and dynamic false"
        )
    if form != "quantrecipe":
        return "transform 'rptq' needs format quantrecipe: no other holds a scale for each cluster of input channels"
    return None


def training_fault(quantization: Quantization) -> str | None:
    """Why this training cannot go with the rest of the recipe; None where it can, or where there is none."""
    training = quantization.training
    if training is None:
        return None
    beside = {
        "transforms": bool(quantization.transforms),
        "compensation": quantization.compensation is not None,
        "kv_cache_scheme": quantization.kv_cache_scheme is not None,
    }
    also = next((name for name, there in beside.items() if there), None)
    if also is not None:
        return f"training {training.name!r} does not go with {also}: what is learned does without; remove one"
    for name, group in quantization.config_groups.items():
        inputs = group.input_activations
        if group.method.name != "rtn":
            return (
                f"training {training.name!r} rounds what it has learned to the nearest number; config_groups.{name} "
                f"asks for method {group.method.name!r}: use rtn"
            )
        if inputs is not None and training.name == "qlora":
            return f"training 'qlora' adapts rounded weights alone; config_groups.{name} rounds inputs: use qat"
        if inputs is not None and not inputs.dynamic:
            return f"training 'qat' needs scales found on the fly; config_groups.{name} has static ones for inputs"
    return None
