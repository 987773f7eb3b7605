"""A mix as the recipe's ``config_groups`` and ``ignore``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from quantrecipe.advisor.draft import method_args
from quantrecipe.mixed.options import Option
from quantrecipe.mixed.patterns import patterns
from quantrecipe.mixed.units import Unit
from quantrecipe.modeling.plan import HEAD_ALIAS
from quantrecipe.modeling.skeleton import LinearInfo


def groups_of(
    linears: Sequence[LinearInfo], units: Iterable[Unit], chosen: Mapping[str, Option]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """(config_groups, ignore) that give every unit its option, and leave every other layer as it is.

    A later group wins in a recipe: the option of the most layers comes first and names its class, the others follow
    by falling number of layers, so that each pattern may run over layers that a later one takes back.
    """
    layers: dict[Option, list[str]] = {}
    for unit in units:
        layers.setdefault(chosen[unit.name], []).extend(unit.layers)
    quantized = sorted((one for one in layers if not one.keeps), key=lambda one: (-len(layers[one]), str(one)))
    groups = {}
    for place, one in enumerate(quantized):
        later = [name for other in quantized[place + 1 :] for name in layers[other]]
        targets = ["Linear"] if place == 0 else patterns(linears, layers[one], later)
        groups[_name(one, quantized)] = {"targets": targets, "scheme": one.scheme, "method": method_args(one.method)}
    return groups, _ignored(linears, {name for one in quantized for name in layers[one]})


def _name(option: Option, options: Sequence[Option]) -> str:
    """The group's name: its scheme, and its method where that does not tell it apart."""
    alone = sum(other.scheme == option.scheme for other in options) == 1
    return option.scheme if alone else f"{option.scheme}-{option.method}"


def _ignored(linears: Sequence[LinearInfo], quantized: set[str]) -> list[str]:
    """What names every linear layer that stays; routers and embeddings stay by themselves."""
    free = {info.name for info in linears if info.is_router or info.kind == "Embedding"}
    kept = {info.name for info in linears if info.name not in quantized | free and not info.is_head}
    head = [HEAD_ALIAS] if any(info.is_head and info.name not in quantized for info in linears) else []
    return head + patterns(linears, kept, free)
