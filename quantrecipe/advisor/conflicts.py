"""Where rules disagree about an answer: reported with it, never settled in silence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from quantrecipe.advisor.candidate import Candidate

OWN = "quantrecipe"

if TYPE_CHECKING:
    from quantrecipe.rules.conflicts import Conflict, Deadlock


def disagreements(chosen: Candidate | None, candidates: Sequence[Candidate]) -> list[Conflict | Deadlock]:
    """Rules that pull the recommendation apart, and deadlocks; ``--explain`` shows what was beaten elsewhere.

    A deadlock is a requirement that no candidate meets without another rule rejecting it.
    """
    found: list[Conflict | Deadlock] = [*_deadlocks(candidates)]
    return found + (chosen.judgement.conflicts if chosen is not None else [])


def _deadlocks(candidates: Iterable[Candidate]) -> list[Deadlock]:
    """Only where some rule was violated: most questions have none, and pay nothing."""
    judgements = [one.judgement for one in candidates]
    if not any(one.with_outcome("violated") for one in judgements):
        return []
    from quantrecipe.rules.conflicts import deadlocks

    return deadlocks(judgements)


def conflict_lines(found: Sequence[Conflict | Deadlock], all_of_them: bool) -> list[str]:
    """One line a deadlock and a conflict; preferences that one rule opposes stand together.

    all_of_them: also deadlocks of our own rules, which say nothing new where other candidates were left.
    """
    if not found:
        return []
    from quantrecipe.rules.conflicts import Deadlock

    lines: list[str] = []
    opposed: dict[str, list[Conflict]] = {}
    for one in found:
        if not isinstance(one, Deadlock) and one.kind == "prefer against prefer":
            opposed.setdefault(one.rules[1].id, []).append(one)
        elif all_of_them or not isinstance(one, Deadlock) or one.rule.origin != OWN:
            lines.append(f"rules conflict: {one.line()}")
    return [*lines, *map(_opposed, opposed.values())]


def _opposed(found: Sequence[Conflict]) -> str:
    """What one rule holds against the choice, and which rules speak for it."""
    against, names = found[0].rules[1], [one.rules[0].id for one in found]
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"rules disagree: {against.title} ({against.id}), against {', '.join(names[:2])}{more}: --explain"
