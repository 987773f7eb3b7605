"""Whether a backend can carry a recipe out, and in which format; where not, which one could."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from quantrecipe.errors import BackendError
from quantrecipe.plugins.contract import Backend, Capabilities
from quantrecipe.plugins.manager import backend, backends
from quantrecipe.recipe import Group, Recipe
from quantrecipe.scheme_facts import SchemeFacts
from quantrecipe.schemes import QuantizationArgs
from quantrecipe.storage import default_format


def choose_format(recipe: Recipe, able: Capabilities, odd: bool) -> str:
    """The output format: as the recipe says, or for ``auto`` the one that most engines read.

    What is no plain Linear (GPT-2's Conv1D, Falcon's own class) is skipped by compressed-tensors' readers: it goes
    out as GPTQ. A GPTQ file has one scheme for all its layers, so that mixed recipes go out in the backend's first
    format.
    """
    asked = recipe.quantization.format
    if asked != "auto":
        return asked
    groups = list(recipe.quantization.config_groups.values())
    only = next((form for group in groups if (form := _only_format(group))), None)
    if only is not None:
        return only if only in able.formats else able.default_format
    if odd:
        wanted = "gptq" if all(group.weights.symmetric for group in groups) else "gptq_v2"
        return wanted if wanted in able.formats else able.default_format
    kinds = {group.weights for group in groups}
    wanted = default_format(_facts(groups[0])) if len(kinds) == 1 else able.default_format
    return wanted if wanted in able.formats else able.default_format


def _only_format(group: Group) -> str | None:
    """The one format that has a place for a group's numbers; None where there are several."""
    inputs = group.input_activations
    if group.method.name in ("olive", "hqq") or "e5m2" in (group.weights.type, inputs.type if inputs else None):
        return "quantrecipe"
    if group.method.name == "llm-int8" or group.weights.type in ("nf4", "fp4"):
        return "bitsandbytes"
    return None


def _facts(group: Group) -> SchemeFacts:
    args, inputs = group.weights, group.input_activations
    bits = inputs.num_bits if inputs else 16
    return SchemeFacts(group.scheme.name, args.num_bits, args.group_size or 0, args.symmetric, args.type, bits)


def choose_backend(recipe: Recipe, odd: bool, device: str) -> tuple[Backend, str, tuple[str, ...]]:
    """(backend, format, notes): the recipe's, or its fallback where that cannot do it. Raises BackendError."""
    wanted = recipe.quantization
    first = backend(wanted.backend)
    form = choose_format(recipe, first.capabilities(), odd)
    try:
        check_backend(recipe, first, form, device)
    except BackendError as error:
        fallback = wanted.fallback or first.capabilities().successor
        if fallback is None:
            raise
        second = backend(fallback)
        form = choose_format(recipe, second.capabilities(), odd)
        check_backend(recipe, second, form, device)
        return second, form, (f"{error.line()}; {second.name!r} takes over",)
    return first, form, ()


def check_backend(recipe: Recipe, one: Backend, form: str, device: str) -> None:
    """Raises BackendError: what the backend lacks, what it has, and which other could."""
    fault = next(faults_of(recipe, one.capabilities(), form, device), None)
    others = _others(recipe, one.name, form, device)
    if fault is not None:
        raise BackendError(f"backend {one.name!r} cannot carry this recipe out: {fault}", remedy=others)
    here = one.availability()
    if not here.available:
        raise BackendError(f"backend {one.name!r} cannot run here", limit=here.missing, remedy=here.remedy or others)


def _others(recipe: Recipe, name: str, form: str, device: str) -> str | None:
    able = [
        other.name
        for other in backends().values()
        if other.name != name and not any(faults_of(recipe, other.capabilities(), form, device))
    ]
    return f"backend {' or '.join(sorted(able))} could" if able else None


def faults_of(recipe: Recipe, able: Capabilities, form: str, device: str) -> Iterator[str]:
    """Everything that a recipe asks for and these capabilities lack."""
    if form not in able.formats:
        yield f"it writes {_list(able.formats)}, not {form}"
    if device not in able.devices:
        yield f"it runs on {_list(able.devices)}, not {device}"
    for name, group in recipe.quantization.config_groups.items():
        for fault in _group_faults(group, able):
            yield f"config_groups.{name}: {fault}"
    quantization = recipe.quantization
    groups = list(quantization.config_groups.values())
    if not able.mixed and any((one.scheme, one.method) != (groups[0].scheme, groups[0].method) for one in groups):
        yield "unlike schemes or methods for some layers; it gives all layers one"
    cache = quantization.kv_cache_scheme
    if cache and cache.num_bits not in able.kv_cache_bits.get(cache.type, ()):
        yield f"it writes no kv_cache_scheme of {cache.num_bits}-bit {cache.type}"
    for transform in quantization.transforms:
        if transform.name not in able.transforms:
            yield f"it knows no transform {transform.name!r}"
    if quantization.compensation and quantization.compensation.name not in able.compensations:
        yield f"it knows no compensation {quantization.compensation.name!r}"
    if quantization.training and quantization.training.name not in able.trainings:
        yield f"it knows no training {quantization.training.name!r}"
    if able.trainings and quantization.training is None:
        yield "it trains, and the recipe has no training"


def _group_faults(group: Group, able: Capabilities) -> Iterator[str]:
    weights, inputs = group.weights, group.input_activations
    bits = able.weight_bits.get(weights.type, ())
    if weights.num_bits not in bits:
        have = ", ".join(f"{kind} {_list(each)}" for kind, each in able.weight_bits.items())
        yield f"weights of type {weights.type} with {weights.num_bits} bits; it stores {have}"
    if weights.strategy not in able.strategies:
        yield f"strategy {weights.strategy!r}; it knows {_list(able.strategies)}"
    if not weights.symmetric and not able.asymmetric:
        yield "asymmetric weights; it stores symmetric ones"
    if weights.group_size and able.group_sizes and weights.group_size not in able.group_sizes:
        yield f"group_size {weights.group_size}; it knows {_list(able.group_sizes)}"
    if group.method.name not in able.methods:
        yield f"method {group.method.name!r}; it knows {_list(able.methods)}"
    elif not able.takes(group.method.name, weights.type):
        known = _list(able.type_methods[weights.type])
        yield f"method {group.method.name!r} with weights of type {weights.type}; that type takes {known}"
    if "Embedding" in group.targets and not able.embeddings:
        yield "target 'Embedding'; it quantizes linear layers only"
    if inputs is not None:
        yield from _activation_faults(inputs, able)


def _activation_faults(inputs: QuantizationArgs, able: Capabilities) -> Iterator[str]:
    if inputs.num_bits not in able.activation_bits:
        yield f"{inputs.num_bits}-bit inputs; it knows {_list(able.activation_bits) or 'none'}"
    if inputs.type not in able.activation_types:
        yield f"inputs of type {inputs.type}; it knows {_list(able.activation_types)}"
    if inputs.strategy not in able.activation_strategies:
        yield f"inputs with strategy {inputs.strategy!r}; it knows {_list(able.activation_strategies)}"
    if not inputs.dynamic and not able.static_activations:
        yield "static scales for inputs; it knows dynamic ones"


def _list(items: Iterable[object]) -> str:
    return ", ".join(str(item) for item in items)
