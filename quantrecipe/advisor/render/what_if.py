"""A table of memory by context and scheme."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from quantrecipe.advisor.assess import all_ways, loaded
from quantrecipe.advisor.candidates import Way
from quantrecipe.advisor.constraints import UNLIMITED, Constraints
from quantrecipe.advisor.render.table import table
from quantrecipe.memory import combine
from quantrecipe.model import ModelSpec

_CONTEXTS = (512, 2048, 8192, 32768, 131072)
_SHOWN = (
    "w8a16",
    "w6a16-g128",
    "w5a16-g128",
    "w4a16-g128",
    "w4a16",
    "w3a16-g128-asym",
    "w3a16-asym",
    "w2a16-g64-asym",
)


def what_if_text(model: ModelSpec, asked: Constraints) -> str:
    """Total GB for each scheme, context and width of the KV cache that the engine has; * fits, ? at the edge."""
    contexts = [n for n in _CONTEXTS if n <= model.context] or [model.context]
    head = ("total GB (* fits, ? edge)", *(f"{n:,}" for n in contexts))
    return table(head, list(_rows(model, asked, contexts))) + "\n"


def _rows(model: ModelSpec, asked: Constraints, contexts: list[int]) -> Iterator[tuple[str, ...]]:
    shown: dict[str, Way] = {}
    for way in all_ways(model, asked):
        if way.scheme.name in _SHOWN:
            shown.setdefault(way.scheme.name, way)
    for name, way in shown.items():
        for kv_bits in sorted({16, *asked.program.cache_bits}, reverse=True):
            cells = [_cell(model, way, replace(asked, context=n), kv_bits) for n in contexts]
            yield (f"{name}, {kv_bits}-bit KV", *cells)


def _cell(model: ModelSpec, way: Way, asked: Constraints, kv_bits: int) -> str:
    stored = loaded(model, way, asked)
    memory = combine(model, stored, way.format, asked.serving(kv_bits))
    known = asked.memory < UNLIMITED
    mark = (
        {"fits": "*", "edge": "?", "does not fit": " "}[memory.verdict(asked.room(memory.weights_bytes))]
        if known
        else " "
    )
    return f"{memory.total_bytes / 1e9:.1f}{mark}"
