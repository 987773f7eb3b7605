"""The nearest published rows: a compact table, read the first time that an answer shows its evidence."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from quantrecipe.rules.evidence_row import EvidenceRow
from quantrecipe.rules.prediction_features import METHOD_CLASS, PLAIN, Query, octaves

FILE = Path(__file__).with_name("prediction_rows.jsonl")  # a family, a tab, its rows
STRINGS, POOLED = "#strings", "#pooled"
PARAMS, BITS, ACT_BITS, KV_BITS = 4, 5, 8, 9  # where these stand in a row: EvidenceRow's order
MEASURED = 80
SHOWN = 5
UNNAMED = "ptq-unnamed"  # a table that names no method: shown beside every solved one
CONTRADICTS = 3.0  # a printed loss this many times the predicted one, or its inverse, is named in the note
TOO_SMALL = 0.01  # ... unless both are under 1 %
_METRIC_ORDER = {"ppl_wiki2": 0.0, "ppl_wikitext": 0.0, "ppl_mean": 0.1, "ppl_c4": 0.2}


@lru_cache(maxsize=1)
def _lines() -> dict[str, str]:
    """family -> its line, unparsed: an answer shows rows of one family only."""
    named = (line.partition("\t") for line in FILE.read_text(encoding="utf-8").splitlines())
    return {name: text for name, _, text in named}


@lru_cache(maxsize=64)
def _raw(name: str) -> tuple[list[Any], ...]:
    return tuple(json.loads(_lines().get(name, "[]")))


def _row(raw: list[Any]) -> EvidenceRow:
    strings = _raw(STRINGS)[0]
    return EvidenceRow(*(strings[v[0]] if isinstance(v, list) else v for v in raw))


@lru_cache(maxsize=64)
def rows(family: str) -> tuple[EvidenceRow, ...]:
    """The deduplicated rows of a family, perplexity and accuracy alike; () for an unseen one."""
    return tuple(_row(raw) for raw in _raw(family))


def _known(q: Query) -> tuple[list[Any], ...]:
    """The family's rows; those of the pooled families where the asked one is unseen."""
    return _raw(q.family) if q.family not in ("", STRINGS) and _raw(q.family) else _raw(POOLED)


@lru_cache(maxsize=64)
def _close(q: Query) -> tuple[EvidenceRow, ...]:
    """The rows worth measuring: by bits and size alone."""
    found = _known(q)

    def rough(raw: list[Any]) -> float:
        widths = abs(raw[BITS] - q.bits) + abs(raw[ACT_BITS] - q.act_bits) / 4 + abs(raw[KV_BITS] - q.kv_bits) / 8
        return float(2 * widths + 0.7 * min(abs(math.log(raw[PARAMS] / max(q.params_b, 1e-3))), 3.0))

    return tuple(_row(raw) for raw in sorted(found, key=rough)[:MEASURED])


def distance(row: EvidenceRow, q: Query) -> float:
    """How far a row is from a question; bits and method first, then size, group, data set."""
    sizes = abs(math.log(max(row.params_b, 1e-3) / max(q.params_b, 1e-3)))
    far = 2.0 * abs(row.bits - q.bits) + abs(row.act_bits - q.act_bits) / 4 + abs(row.kv_bits - q.kv_bits) / 8
    far += 0.15 * abs(octaves(row.group_size) - octaves(q.group_size)) + (row.group_size is None) * (
        0.15 if q.group_size else 0.0
    )
    far += 0.7 * min(sizes, 3.0) + method_distance(row.method, q.method)
    return far + (_METRIC_ORDER.get(row.metric, 0.3) if row.loss is not None else 1.2)


def method_distance(a: str, b: str) -> float:
    """0 for one method, 0.3 for the unnamed one beside a solved one, more across classes."""
    if a == b:
        return 0.0
    same = METHOD_CLASS.get(a, PLAIN) == METHOD_CLASS.get(b, PLAIN)
    return 0.3 if UNNAMED in (a, b) and same else 0.8 if same else 1.5


def nearest_rows(
    q: Query, count: int = SHOWN, of: Callable[[EvidenceRow], bool] | None = None
) -> tuple[EvidenceRow, ...]:
    """Up to ``count`` rows: of the family, else of the families that stand for all (then the scheme decides).

    of: which rows count, among all of them; without it, those close in bits and size.
    """
    found = _close(q) if of is None else [row for row in map(_row, _known(q)) if of(row)]
    return tuple(sorted(found, key=lambda r: (distance(r, q), r.source, r.table))[:count])


def conflicts(q: Query, increase: float) -> list[str]:
    """Rows of this very model and scheme, by this or an unnamed method, that print something else entirely."""
    out = []
    for row in _close(q):
        if row.loss is None or method_distance(row.method, q.method) > 0.3 or not _same_cell(row, q):
            continue
        printed = math.expm1(row.loss)
        small, large = sorted((abs(printed), abs(increase)))
        if large > TOO_SMALL and large > CONTRADICTS * max(small, TOO_SMALL / CONTRADICTS):
            out.append(f"{row.source}, {row.metric} {row.baseline:g} -> {row.value:g} ({row.method})")
    return out[:3]


def _same_cell(row: EvidenceRow, q: Query) -> bool:
    if row.family != q.family:
        return False
    here = (q.bits, q.group_size, q.act_bits, q.kv_bits, q.act_type, q.weight_type)
    there = (row.bits, row.group_size, row.act_bits, row.kv_bits, row.act_type, row.weight_type)
    return here == there and row.params_b == q.params_b
