"""Says of each rule, line by line, whether it held and which values it saw: for ``--explain``."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

from quantrecipe.rules.engine import outcome
from quantrecipe.rules.evaluate import Truth, Value, build
from quantrecipe.rules.facts import Facts
from quantrecipe.rules.judgement import Outcome
from quantrecipe.rules.line import Line
from quantrecipe.rules.rule import Rule

_MARKS = {True: "yes", False: "no", None: "unknown"}


class LineTrace(NamedTuple):
    """How a line came out: true, false or None (unknown), and the facts it saw."""

    text: str
    held: Truth
    values: dict[str, Any]

    def line(self) -> str:
        """The trace as one line: ``no: candidate.weight_bits <= 3 (candidate.weight_bits 4)``."""
        seen = ", ".join(f"{name} {'unknown' if value is None else value}" for name, value in self.values.items())
        return f"{_MARKS[self.held]}: {self.text} ({seen})"


class RuleTrace(NamedTuple):
    """How a rule came out for one candidate, line by line; outcome None where it did not fire."""

    rule: Rule
    outcome: Outcome | None
    when: tuple[LineTrace, ...]
    require: tuple[LineTrace, ...]


def trace(line: Line, facts: Facts, function: Value | None = None) -> LineTrace:
    """Evaluates a line and keeps what it saw; ``function`` is the line as built already, if it was."""
    values = {name: attrgetter(name)(facts) for name in line.facts}
    return LineTrace(line.text, (function or build(line.tree))(facts), values)


def explain(rule: Rule, facts: Facts, function: Callable[[Line], Value]) -> RuleTrace:
    """One rule, line by line."""
    when, require = (
        tuple(trace(line, facts, function(line)) for line in lines) for lines in (rule.when, rule.require)
    )
    fired = all(line.held is True for line in when)
    return RuleTrace(rule, outcome(rule, (line.held for line in require)) if fired else None, when, require)
