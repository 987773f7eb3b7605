"""``qrun backends``: which are there, whether they can run here, and what they can do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from quantrecipe.plugins.contract import Backend
from quantrecipe.plugins.manager import backends
from quantrecipe.recipe import Recipe
from quantrecipe.runner.capability import choose_format, faults_of


def as_json() -> str:
    """One object a backend, by name."""
    found = {
        name: {"availability": asdict(one.availability()), "capabilities": asdict(one.capabilities())}
        for name, one in backends().items()
    }
    return json.dumps(found, indent=2, sort_keys=True)


def as_text() -> str:
    """A short paragraph a backend."""
    return "\n\n".join(_paragraph(one) for one in _ready_first())


def judged_json(recipe: Recipe) -> str:
    """One object a backend: whether it can, its faults, and the remedy."""
    found = {
        name: {"can": not faults, "faults": faults, "remedy": one.availability().remedy}
        for name, one, faults in _judge(recipe)
    }
    return json.dumps(found, indent=2, sort_keys=True)


def judged_text(recipe: Recipe) -> str:
    """A line a backend that can; those that cannot with every reason."""
    lines = []
    for name, one, faults in _judge(recipe):
        here = one.availability()
        lines.append(f"{name} {here.version or ''}".rstrip() + (": cannot" if faults else ": can carry it out"))
        lines += [f"  - {fault}" for fault in faults]
        if not here.available and here.remedy:
            lines.append(f"  remedy: {here.remedy}")
    return "\n".join(lines)


def _judge(recipe: Recipe) -> Iterator[tuple[str, Backend, list[str]]]:
    """(name, backend, why it cannot), for this machine's CPU or the devices that it has, in its own format."""
    for one in _ready_first():
        able, here = one.capabilities(), one.availability()
        form = choose_format(recipe, able, False)
        faults = list(faults_of(recipe, able, form, able.devices[0]))
        if not here.available:
            faults.append(f"not installed: {here.missing}")
        yield one.name, one, faults


def _ready_first() -> list[Backend]:
    """Those that can run here, our own at their head."""
    return sorted(
        backends().values(), key=lambda one: (not one.availability().available, one.name != "native", one.name)
    )


def _paragraph(one: Backend) -> str:
    here, able = one.availability(), one.capabilities()
    state = "ready" if here.available else f"not available: {here.missing}"
    weights = "; ".join(f"{kind} {_list(bits)}" for kind, bits in able.weight_bits.items())
    lines = [
        f"{one.name} {here.version or ''}".rstrip() + f": {state}",
        f"  weights      {weights} bits, {'symmetric or not' if able.asymmetric else 'symmetric'}, "
        f"per {_list(able.strategies)}",
        f"  inputs       {_list(able.activation_bits)} bits, {_list(able.activation_types)}, "
        f"per {_list(able.activation_strategies)}",
        f"  methods      {_list(able.methods)}",
        *([f"  transforms   {_list((*able.transforms, *able.compensations))}"] if able.transforms else []),
        *([f"  training     {_list(able.trainings)}"] if able.trainings else []),
        f"  formats      {_list(able.formats)}",
        f"  devices      {_list(able.devices)}",
        f"  memory       {'one decoder block at a time' if able.streams else 'the whole model'}",
    ]
    if not here.available and here.remedy:
        lines.append(f"  remedy       {here.remedy}")
    return "\n".join(lines)


def _list(items: Iterable[object]) -> str:
    return ", ".join(str(item) for item in items) or "none"
