"""Every rule that could speak about the recommendation, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quantrecipe.advisor.advice import Advice
from quantrecipe.advisor.facts import budget_facts, engine_facts, hardware_facts, model_facts
from quantrecipe.advisor.render.text import wrap
from quantrecipe.rules.engine import RuleSet


def explain_text(advice: Advice, rules: RuleSet) -> str:
    """Rules that fired with their lines; those that did not with the line that failed; then conflicts."""
    chosen = advice.recommended
    if chosen is None:
        return ""
    asked = advice.asked
    judge = rules.for_query(
        model_facts(chosen.model), budget_facts(asked), hardware_facts(asked), engine_facts(asked)
    )
    lines: list[str] = [f"Rules about {chosen.label}"]
    for trace in judge.explain(chosen.judgement.candidate):
        lines += _lines(trace)
    lines += [wrap(f"conflict: {conflict.line()}") for conflict in chosen.judgement.conflicts]
    return "\n".join(lines) + "\n"


def _lines(trace: Any) -> Iterator[str]:
    rule = trace.rule
    if trace.outcome is None:
        failed = next(line for line in trace.when if line.held is not True)
        yield wrap(f"-        {rule.id}: {failed.line()}", "  ", " " * 11)
        return
    yield wrap(f"{trace.outcome:9}{rule.id}: {rule.title}", "  ", " " * 11)
    for line in (*trace.when, *trace.require):
        yield wrap(line.line(), " " * 11, " " * 15)
    for row in rule.rows[:3]:
        yield wrap(f"evidence: {row}", " " * 11, " " * 15)
