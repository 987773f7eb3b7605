"""Layers that stand out: changed for the worse since the accepted checkpoint, or far worse than the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from quantrecipe.runner.report.rows import error_of

MOST = 10
#: An error that grew by a tenth is more than another calibration seed makes of it (docs/gates.md).
GREW, STANDS_OUT = 1.1, 2.0


def suspects(
    layers: Sequence[Mapping[str, Any]], accepted: Sequence[Mapping[str, Any]] | None = None
) -> list[dict[str, str]]:
    """At most ten, the worst first; ``name`` and ``why``. accepted: the layers of the accepted results."""
    if accepted:
        return _changed(layers, {layer["name"]: layer for layer in accepted})
    if not layers:
        return []
    middle = median(layer["relative_error"] for layer in layers)
    odd = [layer for layer in layers if layer["relative_error"] > STANDS_OUT * middle > 0]
    return [
        {"name": layer["name"], "why": f"{layer['scheme']}: weight error {_times(layer, middle)} the median's"}
        for layer in sorted(odd, key=error_of, reverse=True)[:MOST]
    ]


def _times(layer: Mapping[str, Any], middle: float) -> str:
    return f"{layer['relative_error']:.3g}, {layer['relative_error'] / middle:.1f} times"


def _changed(layers: Sequence[Mapping[str, Any]], before: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Weight errors are compared, since both always have them."""
    pairs = [(before[layer["name"]], layer) for layer in layers if layer["name"] in before]
    worse = [(old, new) for old, new in pairs if new["relative_error"] > GREW * old["relative_error"]]
    worse.sort(key=lambda pair: pair[1]["relative_error"] / max(pair[0]["relative_error"], 1e-12), reverse=True)
    return [{"name": new["name"], "why": _change(old, new)} for old, new in worse[:MOST]]


def _change(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    scheme = f"{old['scheme']} became {new['scheme']}: " if old["scheme"] != new["scheme"] else ""
    return f"{scheme}weight error {old['relative_error']:.3g} became {new['relative_error']:.3g}"
