"""How effects compose, how packs override, and what is reported as a conflict: documents as truth tables."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest

from quantrecipe.errors import QuantRecipeError
from quantrecipe.rules.conflicts import deadlocks
from quantrecipe.rules.engine import RuleSet
from quantrecipe.rules.expression import parse
from quantrecipe.rules.facts import BudgetFacts, CandidateFacts, EngineFacts, Facts, HardwareFacts, ModelFacts
from quantrecipe.rules.judgement import Judgement
from quantrecipe.rules.line import Line, line
from quantrecipe.rules.loader import builtin_rules, load_rules
from quantrecipe.rules.rule import Rule

MODEL = ModelFacts("opt-30b", "opt", 30_000_000_000)
GPTQ = CandidateFacts("w4a16", "gptq", 4)
RTN = CandidateFacts("w4a16", "rtn", 4)


def lines(*texts: str) -> tuple[Line, ...]:
    return tuple(line(text, parse(text)) for text in texts)


def make(name: str, effect: str, *when: str, require: tuple[str, ...] = (), **more: Any) -> Rule:
    texts = {"finding": "f", "advice": "a", "source": "s", "limits": "l", "stands_on": ("text",)}
    ident, parts = f"t/{name}", {"when": lines(*when), "require": lines(*require)}
    return Rule(id=ident, title=f"{name} title", effect=effect, **{**texts, **parts, **more})  # type: ignore[arg-type]


def judge(*rules: Rule, candidate: CandidateFacts = GPTQ, **more: Any) -> Judgement:
    return RuleSet(rules).judge(Facts(MODEL, candidate, **more))


FORBID = make("forbid", "forbid", 'candidate.method == "gptq"')
REQUIRE_MET = make("met", "require", "candidate.weight_bits == 4", require=('candidate.method == "gptq"',))
REQUIRE_BROKEN = make("broken", "require", "candidate.weight_bits == 4", require=('candidate.method == "awq"',))
REQUIRE_UNKNOWN = make("unknown", "require", "candidate.weight_bits == 4", require=("hardware.fp8",))
PREFER = make("prefer", "prefer", 'candidate.method == "gptq"', weight=2.0)
AGAINST = make("against", "prefer", 'candidate.method == "gptq"', weight=-0.5)
NOTE = make("note", "note", 'candidate.method == "gptq"')


@pytest.mark.parametrize(
    ("rules", "allowed", "because", "weight"),
    [
        ((), True, None, 0),
        ((NOTE,), True, None, 0),
        ((PREFER,), True, None, 2),
        ((PREFER, AGAINST), True, None, 1.5),
        ((REQUIRE_MET,), True, None, 0),
        ((REQUIRE_UNKNOWN,), True, None, 0),
        ((REQUIRE_BROKEN,), False, "broken title (t/broken)", 0),
        ((FORBID,), False, "forbid title (t/forbid)", 0),
        ((REQUIRE_BROKEN, FORBID), False, "forbid title (t/forbid)", 0),
        ((REQUIRE_MET, FORBID), False, "forbid title (t/forbid)", 0),
        ((PREFER, REQUIRE_BROKEN), False, "broken title (t/broken)", 2),
        ((PREFER, FORBID, NOTE), False, "forbid title (t/forbid)", 2),
    ],
)
def test_composition(rules: tuple[Rule, ...], allowed: bool, because: str | None, weight: float) -> None:
    """The same answer in whatever order the rules stand."""
    for order in permutations(rules):
        result = judge(*order)
        assert (result.allowed, result.rejected_because, result.weight) == (allowed, because, weight)


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((FORBID, REQUIRE_BROKEN), []),
        ((FORBID, REQUIRE_MET), [("forbid beats require", "t/forbid")]),
        ((FORBID, PREFER), [("forbid beats prefer", "t/forbid")]),
        ((FORBID, AGAINST), []),
        ((REQUIRE_BROKEN, PREFER), [("require beats prefer", "t/broken")]),
        ((REQUIRE_MET, PREFER), []),
        ((PREFER, AGAINST), [("prefer against prefer", "t/prefer")]),
        (
            (PREFER, make("equal", "prefer", 'candidate.method == "gptq"', weight=-2.0)),
            [("prefer against prefer", None)],
        ),
        ((PREFER, make("else", "prefer", "candidate.kv_bits == 16", weight=-2.0)), []),
        ((FORBID, make("else", "require", "candidate.weight_bits == 4", require=("candidate.kv_bits == 16",))), []),
    ],
)
def test_conflicts_are_reported(rules: tuple[Rule, ...], expected: list[tuple[str, str | None]]) -> None:
    for order in permutations(rules):
        found = judge(*order).conflicts
        assert [(one.kind, one.winner.id if one.winner else None) for one in found] == expected
        assert all("\n" not in one.line() for one in found)


def test_settings_take_the_stronger_effect_then_the_weight_then_the_order() -> None:
    note = make("note", "note", value={"smoothquant_alpha": 0.5, "lorc_rank": 8})
    light = make("light", "prefer", weight=0.5, value={"smoothquant_alpha": 0.6})
    heavy = make("heavy", "prefer", weight=-1.0, value={"smoothquant_alpha": 0.7})
    result = judge(note, light, heavy)
    assert result.settings == {"smoothquant_alpha": 0.7, "lorc_rank": 8}
    assert [one.winner.id for one in result.conflicts if one.winner] == ["t/light", "t/heavy", "t/heavy"]
    twin = judge(note, note._replace(id="t/twin", value={"smoothquant_alpha": 0.8}))
    assert twin.settings["smoothquant_alpha"] == 0.5
    assert [one.winner for one in twin.conflicts] == [None]


def test_unchecked_requirements_are_noted() -> None:
    result = judge(REQUIRE_UNKNOWN, NOTE)
    assert [rule.id for rule in result.notes] == ["t/unknown", "t/note"]
    assert not judge(REQUIRE_UNKNOWN, hardware=HardwareFacts(fp8=False)).allowed
    assert judge(REQUIRE_UNKNOWN, hardware=HardwareFacts(fp8=True)).with_outcome("met")


def test_a_rule_without_when_always_fires_and_a_deprecated_one_never() -> None:
    always = make("always", "note")
    assert judge(always).notes == [always]
    assert judge(always._replace(status="deprecated")).firings == ()
    assert judge(FORBID._replace(status="deprecated")).allowed


def test_deadlock_is_reported_when_nothing_can_meet_a_requirement() -> None:
    judged = RuleSet((REQUIRE_MET, FORBID)).for_query(MODEL)
    found = deadlocks([judged.judge(GPTQ), judged.judge(RTN)])
    assert [one.line() for one in found] == ["t/met can be met by none of the candidates: t/forbid"]
    alone = RuleSet((REQUIRE_BROKEN,)).for_query(MODEL)
    assert "no candidate does what it asks" in deadlocks([alone.judge(GPTQ)])[0].line()
    free = RuleSet((REQUIRE_MET,)).for_query(MODEL)
    assert deadlocks([free.judge(GPTQ), free.judge(RTN)]) == []


def test_explain_agrees_with_judge_on_every_builtin_rule() -> None:
    """Grouping and remembering change nothing: line by line gives the same outcomes."""
    rules = RuleSet(builtin_rules())
    methods, bits, groups = ["rtn", "gptq", "awq", "smoothquant"], [2, 3, 4, 8], [0, 128]
    candidates = [
        CandidateFacts(f"w{w}", m, w, a, g, 0, s, "int", "none" if a == 16 else "int", kv, format="gptq")
        for m, w, a, g, s, kv in product(methods, bits, [8, 16], groups, [True, False], [8, 16])
    ]
    hardware = HardwareFacts("a100", "nvidia", "ampere", 8.0, 85 * 10**9, False)
    for model, engine in product([MODEL, MODEL._replace(family="bloom", parameters=176 * 10**9)], ["vllm", None]):
        judged = rules.for_query(model, BudgetFacts(batch=16), hardware, EngineFacts(engine))  # type: ignore[arg-type]
        for candidate in candidates:
            fired = [(one.rule.id, one.outcome) for one in judged.judge(candidate).firings]
            told = [(one.rule.id, one.outcome) for one in judged.explain(candidate) if one.outcome]
            assert fired == told


PACK = """
pack: {pack}
title: A pack
about: For a test.
rules:
  - id: gptq/act-order
    title: {title}
    effect: note
    finding: some finding
    advice: some advice
    source: a test
    stands_on: [text]
    limits: none at all
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def pack(title: str) -> Path:
        path = tmp_path / f"{title}.yaml"
        path.write_text(PACK.format(pack="other", title=title))
        return path

    return pack


def test_later_packs_override_by_id(write: Callable[[str], Path]) -> None:
    plugin, user = write("plugin"), write("user")
    assert load_rules().get("gptq/act-order").effect == "prefer"
    assert load_rules(plugin_packs=[plugin]).get("gptq/act-order").title == "plugin"
    both = load_rules([user], [plugin])
    assert both.get("gptq/act-order").title == "user"
    assert [(one.before, one.after) for one in both.replaced] == [
        ("quantrecipe", str(plugin)),
        (str(plugin), str(user)),
    ]
    assert [rule.id for rule in both.rules] == [rule.id for rule in load_rules().rules]


def test_unknown_rule_names_the_nearest() -> None:
    with pytest.raises(QuantRecipeError, match="did you mean 'gptq/act-order'"):
        load_rules().get("gptq/act-oder")


def test_a_broken_pack_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(PACK.format(pack="x", title="fine").replace("effect: note", "effect: not"))
    with pytest.raises(QuantRecipeError, match=r"p\.yaml:8: rule gptq/act-order effect: 'not'.*did you mean 'note'"):
        load_rules([path])


def test_judging_needs_neither_yaml_nor_pydantic() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from quantrecipe.rules.loader import load_rules; load_rules();"
        "print({'yaml', 'pydantic', 'quantrecipe.rules.expression'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
