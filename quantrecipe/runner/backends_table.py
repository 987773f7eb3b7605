"""``qrun backends``: which are there, whether they can run here, and what they can do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict

from quantrecipe.plugins.contract import Backend
from quantrecipe.plugins.manager import backends


def as_json() -> str:
    """One object a backend, by name."""
    found = {
        name: {"availability": asdict(one.availability()), "capabilities": asdict(one.capabilities())}
        for name, one in backends().items()
    }
    return json.dumps(found, indent=2, sort_keys=True)


def as_text() -> str:
    """A short paragraph a backend."""
    return "\n\n".join(_paragraph(one) for _, one in sorted(backends().items()))


def _paragraph(one: Backend) -> str:
    here, able = one.availability(), one.capabilities()
    state = "ready" if here.available else f"not available: {here.missing}"
    weights = "; ".join(f"{kind} {_list(bits)}" for kind, bits in able.weight_bits.items())
    lines = [
        f"{one.name} {here.version or ''}".rstrip() + f": {state}",
        f"  weights      {weights} bits, {'symmetric or not' if able.asymmetric else 'symmetric'}, "
        f"per {_list(able.strategies)}",
        f"  inputs       {_list(able.activation_bits)} bits",
        f"  methods      {_list(able.methods)}",
        f"  formats      {_list(able.formats)}",
        f"  devices      {_list(able.devices)}",
        f"  memory       {'one decoder block at a time' if able.streams else 'the whole model'}",
    ]
    if not here.available and here.remedy:
        lines.append(f"  remedy       {here.remedy}")
    return "\n".join(lines)


def _list(items: Iterable[object]) -> str:
    return ", ".join(str(item) for item in items) or "none"
