"""What the engine that a recipe names cannot load: facts from the engines' own code (INTEROP.md)."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from quantrecipe.errors import RecipeError
from quantrecipe.modeling.experts import experts_of
from quantrecipe.modeling.plan import Plan, PlannedModule
from quantrecipe.recipe import Group, Recipe

#: Projections that engines fuse into one matrix: all of a set must have the same scheme.
FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("q_a_proj", "kv_a_proj_with_mqa"))
FUSING_ENGINES = ("vllm", "sglang", "tensorrt-llm")


def check_engine(recipe: Recipe, plan: Plan, form: str) -> None:
    """Raises RecipeError naming the first thing that the format or ``target.engine`` cannot hold."""
    engine = (recipe.target.engine or "").lower()
    fault = next(_faults(recipe, plan, form, engine), None)
    if fault:
        what, remedy = fault
        raise RecipeError(what, remedy=remedy)


def _faults(recipe: Recipe, plan: Plan, form: str, engine: str) -> Iterator[tuple[str, str]]:
    """(fault, remedy), those of the format first."""
    odd = next((module.name for module in plan.quantized if not module.info.is_plain), None)
    if odd and form == "compressed-tensors":
        yield (
            f"{odd} is not a plain Linear (GPT-2's Conv1D, Falcon's own class), and compressed-tensors skips it",
            "set quantization.format to gptq, or auto",
        )
    if form in ("gptq", "gptq_v2"):
        yield from _gptq(recipe)
    if engine in FUSING_ENGINES:
        yield from _embeddings(plan, engine)
    if engine == "vllm":
        yield from _vllm(recipe, form)
        yield from _vllm_experts(plan, form)
    if engine in FUSING_ENGINES:
        yield from _experts(plan, engine)
        yield from _fused(plan, engine)
    if engine == "sglang" and form == "compressed-tensors":
        head = next((module.name for module in plan.quantized if module.info.is_head), None)
        if head:  # it loads without an error and serves garbage (sglang#35358)
            yield f"SGLang reads no quantized output head in compressed-tensors: {head}", "add lm_head to ignore"


def _embeddings(plan: Plan, engine: str) -> Iterator[tuple[str, str]]:
    """vLLM has packed embeddings, symmetric ones, for some models (its issue 54304); SGLang none yet (PR 36137)."""
    found = next((module.name for module in plan.quantized if module.info.is_embedding), None)
    if found:
        yield (
            f"{engine} does not read an embedding quantized to bytes, as transformers does: {found}",
            "leave it alone",
        )


def _gptq(recipe: Recipe) -> Iterator[tuple[str, str]]:
    groups = list(recipe.quantization.config_groups.values())
    if len({group.weights for group in groups}) > 1:
        yield "a GPTQ file holds one scheme, and the groups differ", "use one scheme, or format compressed-tensors"
    if any(group.input_activations for group in groups):
        yield "a GPTQ file holds no activation quantization", "use format compressed-tensors"


def _vllm(recipe: Recipe, form: str) -> Iterator[tuple[str, str]]:
    for name, group in recipe.quantization.config_groups.items():
        fault = _vllm_group(group) if form == "compressed-tensors" else None
        if fault:
            yield f"config_groups.{name}: {fault[0]}", fault[1]


def _vllm_group(group: Group) -> tuple[str, str] | None:
    weights, inputs = group.weights, group.input_activations
    if weights.type != "int":
        return None
    if inputs is not None and not weights.symmetric:
        return "vLLM takes symmetric weights only where inputs are quantized too", "set symmetric: true"
    if inputs is not None and inputs.strategy == "group":
        return "vLLM loads no activation groups", "use strategy token for input_activations"
    if inputs is None and not weights.symmetric and weights.num_bits not in (4, 8):
        return (
            f"vLLM takes zero points at 4 and 8 bits only, not {weights.num_bits}",
            "set symmetric: true, or format gptq_v2",
        )
    return None


def _vllm_experts(plan: Plan, form: str) -> Iterator[tuple[str, str]]:
    """What vLLM's weight-only method for experts asserts (compressed_tensors_moe.py)."""
    for module in plan.quantized if form == "compressed-tensors" else ():
        group = module.group
        if group is None or not module.info.is_expert or group.input_activations or group.weights.type != "int":
            continue
        if not group.weights.symmetric:
            yield f"vLLM takes symmetric experts only, but {module.name} has {_scheme(module)}", "set symmetric: true"
        if group.weights.num_bits not in (4, 8):
            yield f"vLLM takes experts of 4 or 8 bits, but {module.name} has {_scheme(module)}", "use 4 or 8 bits"


def _experts(plan: Plan, engine: str) -> Iterator[tuple[str, str]]:
    """Experts of one block whose matrices differ."""
    blocks: dict[str, dict[str, str]] = defaultdict(dict)
    for module in plan.modules:
        path = experts_of(f"{module.name}.weight")
        if path is not None:
            blocks[path].setdefault(_scheme(module), module.name)
    for path, found in blocks.items():
        if len(found) > 1:
            listed = ", ".join(f"{name.removeprefix(path + '.')} {scheme}" for scheme, name in found.items())
            yield (
                f"{engine} computes a block's experts together, which must share a scheme, but {path} has {listed}",
                "give all experts one group",
            )


def _fused(plan: Plan, engine: str) -> Iterator[tuple[str, str]]:
    """Fused projections whose parts differ."""
    parents: dict[str, dict[str, PlannedModule]] = defaultdict(dict)
    for module in plan.modules:
        parent, _, leaf = module.name.rpartition(".")
        parents[parent][leaf] = module
    for parent, leaves in parents.items():
        for names in FUSED:
            parts = [leaves[name] for name in names if name in leaves]
            if len({_scheme(part) for part in parts}) > 1:
                listed = ", ".join(f"{part.name.rpartition('.')[2]} {_scheme(part)}" for part in parts)
                yield (
                    f"{engine} fuses {'/'.join(names)}, which must share a scheme, but {parent} has {listed}",
                    "give them one group",
                )


def _scheme(module: PlannedModule) -> str:
    return "unquantized" if module.group is None else module.group.scheme.name


def is_odd(plan: Plan) -> bool:
    """Whether a quantized layer is no plain Linear: GPT-2's Conv1D, Falcon's own class."""
    return any(not module.info.is_plain for module in plan.quantized)


def layer_of(name: str) -> str:
    """A module's name with its layer number as ``*``, for tables."""
    return re.sub(r"\.\d+\.", ".*.", name)
