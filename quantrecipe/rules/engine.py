"""Judges candidates: which rules fire, what they do, and where they disagree.

What an effect does, once all ``when`` lines of its rule hold:

forbid   the candidate is rejected.
require  the candidate is rejected if a ``require`` line is false; where one is unknown (a fact is missing) the
         candidate stays and the outcome is "unchecked".
prefer   the weight is added to the candidate's; weights only order candidates that tie on everything else.
note     the text goes with the answer; nothing else changes.

forbid beats require beats prefer beats note; a deprecated rule is never judged. What was beaten is reported as a
conflict (``conflicts.py``), never dropped in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from quantrecipe.errors import did_you_mean
from quantrecipe.rules.evaluate import Truth, Value, build
from quantrecipe.rules.facts import BudgetFacts, CandidateFacts, EngineFacts, Facts, HardwareFacts, ModelFacts
from quantrecipe.rules.judgement import Firing, Judgement, Outcome
from quantrecipe.rules.line import Line
from quantrecipe.rules.rule import Rule

if TYPE_CHECKING:
    from quantrecipe.rules.explain import RuleTrace

#: Rules share a group if it reads at most so many facts: a long key repeats too seldom to be worth keeping.
_MAX_KEY = 4
_FIRED: dict[str, Outcome] = {"forbid": "forbidden", "prefer": "preferred", "note": "noted"}


class Replaced(NamedTuple):
    """A rule that a later pack overrode by id."""

    id: str
    before: str
    after: str


class RuleSet:
    """Rules that are judged together; ``for_query`` once a question, then ``judge`` a candidate at a time."""

    def __init__(self, rules: tuple[Rule, ...], replaced: tuple[Replaced, ...] = ()) -> None:
        self.rules = rules
        self.replaced = replaced
        self._built: dict[str, Value] = {}

    def get(self, ident: str) -> Rule:
        """The rule of that id. Raises RuleError naming the nearest."""
        for rule in self.rules:
            if rule.id == ident:
                return rule
        from quantrecipe.rules.operands import RuleError  # late: judging does not need the parser

        near = did_you_mean(ident, [rule.id for rule in self.rules])
        raise RuleError("unknown rule", value=ident, remedy=near or "list them: qadvise rules")

    def for_query(
        self,
        model: ModelFacts,
        budget: BudgetFacts | None = None,
        hardware: HardwareFacts | None = None,
        engine: EngineFacts | None = None,
    ) -> Judge:
        """A judge for one model, budget, hardware and engine: lines without candidate facts are settled here."""
        query = Facts(
            model,
            CandidateFacts("", "", 16),
            budget or BudgetFacts(),
            hardware or HardwareFacts(),
            engine or EngineFacts(),
        )
        return Judge(self.rules, query, self.function)

    def judge(self, facts: Facts) -> Judgement:
        """Judges one candidate alone; for many, ``for_query`` is far faster."""
        return self.for_query(facts.model, facts.budget, facts.hardware, facts.engine).judge(facts.candidate)

    def function(self, line: Line) -> Value:
        """The line as a function, built once for all rules that share its text."""
        if line.text not in self._built:
            self._built[line.text] = build(line.tree)
        return self._built[line.text]


class Judge:
    """The rules that can still fire for one query, and what they said of the candidates seen so far."""

    def __init__(self, rules: Iterable[Rule], query: Facts, function: Callable[[Line], Value]) -> None:
        self.query = query
        self.rules = [rule for rule in rules if rule.status != "deprecated"]
        self._function = function
        active = [(index, rule) for index, rule in enumerate(self.rules) if _may_fire(rule, query, function)]
        groups: dict[frozenset[str], _Group] = {}
        for index, rule in sorted(active, key=lambda pair: -len(_candidate_facts(pair[1]))):
            names = _candidate_facts(rule)
            home = next((known for known in groups if names <= known and len(known) <= _MAX_KEY), names)
            groups.setdefault(home, _Group(home)).add(index, rule, function)
        self._groups = list(groups.values())

    def judge(self, candidate: CandidateFacts) -> Judgement:
        """Every rule that fires for the candidate, in the order of the packs."""
        facts = self.query._replace(candidate=candidate)
        fired: list[tuple[int, Firing]] = []
        for group in self._groups:
            fired += group.fire(facts)
        fired.sort()
        return Judgement(candidate, tuple([firing for _, firing in fired]))

    def explain(self, candidate: CandidateFacts) -> tuple[RuleTrace, ...]:
        """Every rule with each of its lines: did it hold, and which values did it see?"""
        from quantrecipe.rules.explain import explain  # late: most questions are asked without --explain

        facts = self.query._replace(candidate=candidate)
        return tuple(explain(rule, facts, self._function) for rule in self.rules)


class _Group:
    """Rules that read the same facts of a candidate: what fires is kept by the values of those facts."""

    def __init__(self, names: frozenset[str]) -> None:
        self._key: Callable[[Facts], Any] = attrgetter(*sorted(names)) if names else _no_key
        self._rules: list[tuple[int, Rule, list[Value], list[Value]]] = []
        self._known: dict[Any, list[tuple[int, Firing]]] = {}

    def add(self, index: int, rule: Rule, function: Callable[[Line], Value]) -> None:
        when = [function(line) for line in rule.when if line.on_candidate()]
        self._rules.append((index, rule, when, [function(line) for line in rule.require]))

    def fire(self, facts: Facts) -> list[tuple[int, Firing]]:
        key = self._key(facts)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = list(self._fire(facts))
        return known

    def _fire(self, facts: Facts) -> Iterator[tuple[int, Firing]]:
        for index, rule, when, require in self._rules:
            if all(part(facts) is True for part in when):
                yield index, Firing(rule, outcome(rule, (part(facts) for part in require)))


def _no_key(facts: Facts) -> None:
    """The key of rules that read nothing of the candidate."""


def _may_fire(rule: Rule, query: Facts, function: Callable[[Line], Value]) -> bool:
    """Do the lines that read nothing of the candidate hold?"""
    return all(function(line)(query) is True for line in rule.when if not line.on_candidate())


def _candidate_facts(rule: Rule) -> frozenset[str]:
    lines = (*rule.when, *rule.require)
    return frozenset(name for line in lines for name in line.facts if name.startswith("candidate."))


def outcome(rule: Rule, required: Iterable[Truth]) -> Outcome:
    """What a rule whose ``when`` lines hold does."""
    if rule.effect != "require":
        return _FIRED[rule.effect]
    results = list(required)
    return "violated" if False in results else "unchecked" if None in results else "met"
