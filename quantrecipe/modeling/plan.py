"""Which module gets which scheme: a recipe laid over a model, with nothing skipped in silence."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from quantrecipe.errors import RecipeError, did_you_mean
from quantrecipe.modeling.skeleton import LinearInfo
from quantrecipe.recipe import Group, Recipe
from quantrecipe.schemes import QuantizationArgs, scale_bits, scale_count

HEAD_ALIAS = "lm_head"
LINEAR_KINDS = ("Linear", "LinearSubclass", "Conv1D")
#: What leaves routers alone where the recipe does not name one; shown as what ignores them.
ROUTER_RULE = "routers stay as they are"


@dataclass(frozen=True, slots=True)
class PlannedModule:
    """A matrix of the model and what the recipe does with it; group None = it stays as it is."""

    info: LinearInfo
    group_name: str | None
    group: Group | None
    ignored_by: str | None

    @property
    def name(self) -> str:
        """Full name of the module."""
        return self.info.name

    @property
    def as_bytes(self) -> bool:
        """Whether compressed-tensors holds its integers one a byte: inputs are rounded too, or rows looked up.

        transformers loads no packed embedding: its initialisation asks every Embedding for ``weight``.
        """
        return self.group is not None and (self.group.input_activations is not None or self.info.is_embedding)

    @property
    def packed_bytes(self) -> int | None:
        """Bytes of codes, scales and zero points, as compressed-tensors has them; None where it stays as it is."""
        if self.group is None:
            return None
        as_bytes = self.as_bytes and self.group.weights.type == "int"
        return packed_bytes(self.group.weights, self.info.rows, self.info.columns, as_bytes)


@dataclass(frozen=True, slots=True)
class Plan:
    """Every Linear, Conv1D and Embedding of the model, in its order.

    transforms_look: a transform looks at activations, or the model is trained on text.
    kv_cache: how keys and values are rounded.
    """

    modules: tuple[PlannedModule, ...]
    transforms_look: bool = False
    kv_cache: QuantizationArgs | None = None

    @property
    def quantized(self) -> tuple[PlannedModule, ...]:
        """The modules that change."""
        return tuple(module for module in self.modules if module.group is not None)

    def by_name(self) -> dict[str, PlannedModule]:
        """The quantized modules by full name."""
        return {module.name: module for module in self.quantized}

    @property
    def needs_calibration(self) -> bool:
        """Whether a method, a static scale or a transform looks at activations."""
        return self.transforms_look or self.methods_look

    @property
    def methods_look(self) -> bool:
        """Whether some method or static scale looks at activations."""
        cache = self.kv_cache is not None and not self.kv_cache.dynamic
        return cache or any(_looks(module.group) for module in self.quantized if module.group)


def _looks(group: Group) -> bool:
    inputs = group.input_activations
    return group.method.needs != "nothing" or (inputs is not None and not inputs.dynamic)


def packed_bytes(args: QuantizationArgs, rows: int, columns: int, as_bytes: bool = False) -> int:
    """Bytes of one quantized matrix of [rows, columns], codes a byte each or packed without gaps within a row."""
    codes = rows * (columns if as_bytes else -(-columns * args.num_bits // 32) * 4)
    return codes + int(scale_bits(args) * scale_count(args, rows, columns) / 8)


def make_plan(recipe: Recipe, linears: Iterable[LinearInfo]) -> Plan:
    """Lay the recipe over the model's matrices.

    Raises RecipeError where a target or an ignore entry matches nothing, a linear layer is neither
    targeted nor ignored, or a group size does not divide a layer's inputs.
    """
    infos = list(linears)
    modules = tuple(_assign(recipe, info) for info in infos)
    _check_targets(recipe, infos)
    for module in modules:
        _check_module(module)
    quantization = recipe.quantization
    looks = quantization.training is not None or any(one.looks_at_text for one in quantization.transforms)
    plan = Plan(modules, looks, quantization.kv_cache_scheme)
    if not plan.quantized:
        raise RecipeError("the recipe quantizes nothing", remedy="name some layers in targets")
    return plan


def matches(pattern: str, info: LinearInfo) -> bool:
    """Whether a target or ignore entry means this module.

    A class name means every module of the class, where GPT-2's Conv1D and subclasses count as Linear; ``lm_head``
    means the output head whatever the architecture calls it; ``re:`` must match from the start. A name is that
    of transformers or that in the checkpoint's files, where the two differ.
    """
    if pattern.startswith("re:"):
        return any(re.match(_compiled(pattern), name) for name in info.names)
    if pattern == HEAD_ALIAS and info.is_head:
        return True
    if pattern in (*LINEAR_KINDS, "Embedding"):
        return info.kind == pattern or (pattern == "Linear" and info.kind in LINEAR_KINDS)
    return pattern in info.names


def targets(pattern: str, info: LinearInfo) -> bool:
    """Whether a target means this module. A router, and what is no linear layer, must be named in full."""
    if info.is_router or info.kind == "Other":
        return pattern in info.names
    return matches(pattern, info)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern.removeprefix("re:"))
    except re.error as error:
        raise RecipeError("not a regular expression", value=pattern, limit=str(error)) from error


def _assign(recipe: Recipe, info: LinearInfo) -> PlannedModule:
    quantization = recipe.quantization
    ignored = next((entry for entry in quantization.ignore if matches(entry, info)), None)
    if ignored is not None:
        return PlannedModule(info, None, None, ignored)
    chosen: str | None = None
    for name, group in quantization.config_groups.items():
        if any(targets(target, info) for target in group.targets):
            chosen = name
    if chosen is None:
        return PlannedModule(info, None, None, ROUTER_RULE if info.is_router else None)
    return PlannedModule(info, chosen, quantization.config_groups[chosen], None)


def _check_targets(recipe: Recipe, infos: list[LinearInfo]) -> None:
    names = [info.name for info in infos]
    for group_name, group in recipe.quantization.config_groups.items():
        for target in group.targets:
            if not any(targets(target, info) for info in infos):
                raise RecipeError(
                    f"a target of config_groups.{group_name} matches no module of the model",
                    value=target,
                    remedy=did_you_mean(target, names),
                )
    for entry in recipe.quantization.ignore:
        if entry != HEAD_ALIAS and not any(matches(entry, info) for info in infos):
            raise RecipeError("an ignore entry matches no module", value=entry, remedy=did_you_mean(entry, names))


def _check_module(module: PlannedModule) -> None:
    info = module.info
    if module.group is None:
        if info.kind != "Embedding" and module.ignored_by is None:
            raise _left_out(info)
        return
    if info.kind == "Other":
        raise RecipeError("only linear layers can be quantized", value=info.name, remedy="take it out of targets")
    _check_group_size(module.group.weights, info)
    if info.is_tied:
        raise RecipeError(
            "a tied matrix cannot be quantized alone", value=info.name, remedy="add it to ignore, or untie it"
        )
    if info.block is None and _looks(module.group):
        raise RecipeError(
            f"{info.name} lies outside the decoder blocks, where {module.group.method.name} has no inputs to look at",
            remedy=f"add {info.name!r} to ignore, or give it a group of its own with method rtn",
        )


def _left_out(info: LinearInfo) -> RecipeError:
    if info.kind == "Other":
        return RecipeError(
            "a matrix that is no linear layer cannot be quantized", value=info.name, remedy="add it to ignore"
        )
    return RecipeError(
        "a linear layer is neither targeted nor ignored",
        value=info.name,
        remedy="add it to a group's targets or to ignore",
    )


def _check_group_size(args: QuantizationArgs, info: LinearInfo) -> None:
    size = args.group_size
    if args.strategy != "group" or size is None or info.columns % size == 0:
        return
    divisors = [d for d in range(16, min(info.columns, 1024) + 1) if info.columns % d == 0]
    near = sorted(divisors, key=lambda d: abs(d - size))[:3]
    raise RecipeError(
        f"group_size does not divide the {info.columns} inputs of {info.name}",
        value=size,
        limit=f"nearest that do: {', '.join(map(str, sorted(near))) or 'none'}",
        remedy="change group_size, or use strategy channel",
    )
