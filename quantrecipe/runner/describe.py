"""Recipes in a line."""

from __future__ import annotations

from quantrecipe.recipe import Group, Recipe


def describe(recipe: Recipe) -> str:
    """Such as ``demo with native: main w4a16-g64 by gptq; 2 gates``."""
    quantization = recipe.quantization
    groups = ", ".join(describe_group(name, group) for name, group in quantization.config_groups.items())
    set_gates = recipe.gates.count
    gates = "no gates" if not set_gates else f"{set_gates} gate{'s' if set_gates > 1 else ''}"
    return f"{recipe.model.id} with {quantization.backend}: {groups}; {gates}"


def describe_group(name: str, group: Group) -> str:
    """Such as ``main w4a16-g64 by gptq``."""
    return f"{name} {group.scheme.name} by {group.method.name}"
