"""A rule as the engine sees it: texts, parsed lines, effect. Plain data, to and from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from quantrecipe.rules.line import Line

Effect = Literal["forbid", "require", "prefer", "note"]
Status = Literal["stable", "preview", "deprecated"]
StandsOn = Literal["text", "digest", "abstract", "derived"]
Setting = bool | int | float | str

#: From the strongest to the weakest.
EFFECTS: tuple[Effect, ...] = ("forbid", "require", "prefer", "note")


class Query(NamedTuple):
    """Rows of a CSV in ``rules/evidence/`` or ``rules/guidance/``: every column has (one of) the values."""

    file: str
    where: dict[str, list[str]]
    show: tuple[str, ...] = ()


class Rule(NamedTuple):
    """One finding as data.

    when: lines that must all hold; none means always.
    require: lines that a candidate must not break, where ``effect`` is require.
    weight: what ``prefer`` adds to a candidate; negative speaks against it.
    value: settings that the rule recommends, such as ``smoothquant_alpha``.
    evidence, rows: the queries into the CSVs, and the first rows that they select, as text.
    origin: where it was loaded from.
    """

    id: str
    title: str
    effect: Effect
    when: tuple[Line, ...]
    finding: str
    advice: str
    source: str
    stands_on: tuple[StandsOn, ...]
    limits: str
    status: Status = "stable"
    require: tuple[Line, ...] = ()
    weight: float = 0.0
    value: Mapping[str, Setting] = MappingProxyType({})
    evidence: tuple[Query, ...] = ()
    rows: tuple[str, ...] = ()
    origin: str = "quantrecipe"

    @property
    def pack(self) -> str:
        """The pack's name: what stands before the slash of the id."""
        return self.id.partition("/")[0]

    def reason(self) -> dict[str, Any]:
        """The rule as an entry of ``reasons`` in the advisor's JSON."""
        return {
            "rule": self.id,
            "effect": self.effect,
            "finding": self.finding,
            "source": self.source,
            "evidence": list(self.rows),
        }

    def to_json(self) -> dict[str, Any]:
        """The rule as JSON, defaults left out."""
        defaults = self._field_defaults
        return {
            name: value
            for name, value in self._asdict().items()
            if name != "origin" and (name not in defaults or value != defaults[name])
        }


def rule_from_json(data: dict[str, Any], origin: str) -> Rule:
    """The inverse of ``Rule.to_json``; trusts its input, which our own compiler wrote."""
    lines = {name: tuple(Line(*line) for line in data.get(name, ())) for name in ("when", "require")}
    queries = tuple(Query(file, where, tuple(show)) for file, where, show in data.get("evidence", ()))
    return Rule(**{**data, **lines, "evidence": queries, "rows": tuple(data.get("rows", ())), "origin": origin})
