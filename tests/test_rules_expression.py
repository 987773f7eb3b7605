"""The expressions of rules: what they mean, what they refuse, and that nothing else can come of them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantrecipe.rules import evaluate, expression, operands
from quantrecipe.rules.evaluate import build
from quantrecipe.rules.explain import trace
from quantrecipe.rules.expression import MAX_LENGTH, parse
from quantrecipe.rules.facts import CandidateFacts, EngineFacts, Facts, HardwareFacts, ModelFacts, release_number
from quantrecipe.rules.fields import fields
from quantrecipe.rules.line import line
from quantrecipe.rules.operands import RuleError

FACTS = Facts(
    ModelFacts("opt-30b", "opt", 30_000_000_000, layers=48, attention="mha"),
    CandidateFacts("w4a16-g128", "gptq", 4, group_size=128),
    engine=EngineFacts("vllm", "0.11.2", release_number("0.11.2")),
)


def value(text: str, facts: Facts = FACTS) -> Any:
    return build(parse(text))(facts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.billions == 30", True),
        ("10 < model.billions <= 30", True),
        ("10 < model.billions < 30", False),
        ("model.layers * 2 + 4 == 100", True),
        ("-model.layers < 0", True),
        ("candidate.group_size / 2 == 64", True),
        ("1 / (candidate.group_size - 128) > 0", None),
        ("candidate.method in ['gptq', 'awq']", True),
        ("candidate.weight_bits not in (3, 4)", False),
        ("candidate.symmetric", True),
        ("not candidate.symmetric", False),
        ("candidate.symmetric == True", True),
        ("hardware.architecture is None", True),
        ("hardware.architecture is not None", False),
        ("hardware.compute_capability >= 8.9", None),
        ("not (hardware.compute_capability >= 8.9)", None),
        ("hardware.compute_capability + 1 > 2", None),
        ("hardware.fp8", None),
        ("hardware.fp8 and candidate.weight_bits == 3", False),
        ("hardware.fp8 and candidate.weight_bits == 4", None),
        ("hardware.fp8 or candidate.weight_bits == 4", True),
        ("hardware.fp8 or candidate.weight_bits == 3", None),
        ("hardware.name in ['a', 'b']", None),
        ("candidate.weight_bits == 3 == candidate.kv_bits", False),
        ("engine.release >= 11", True),
    ],
)
def test_meaning(text: str, expected: bool | None) -> None:
    assert value(text) is expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("model.paramters > 3", "unknown fact: 'model.paramters'; did you mean 'model.parameters'?"),
        ("model.attention == 'gqq'", "did you mean 'gqa'?"),
        ("hardware.architecture in ['amper']", "did you mean 'ampere'"),
        ("model.billions", "not a condition"),
        ("model.id < 'b'", "has no order"),
        ("model.id == 3", "cannot compare a text with a number"),
        ("candidate.symmetric == 1", "cannot compare a flag with a number"),
        ("candidate.symmetric + 1 > 1", "a number is needed"),
        ("candidate.weight_bits and True", "a condition is needed"),
        ("candidate.method in 'gptq'", "needs a list of constants"),
        ("candidate.method in []", "needs a list of constants"),
        ("candidate.method in [3]", "the list is compared with a text"),
        ("candidate.method in [model.id]", "only constants"),
        ("model.layers is 3", "'is' is only for None"),
        ("model.id is None", "always known"),
        ("model.layers == None", "None is only for"),
        ("1 < model.layers in [3]", "cannot be chained"),
        ("model.layers ** 9 > 3", "not allowed"),
        ("model.layers // 2 > 3", "not allowed"),
        ("len(model.id) > 3", "not allowed"),
        ("model.id.upper() == 'A'", "not allowed"),
        ("model.__class__ == 'x'", "unknown fact"),
        ("model.id.__len__ == 'x'", "not a fact"),
        ("layers > 3", "not a fact"),
        ("[x for x in (1,)] == 3", "not allowed"),
        ("(lambda: 1) == 3", "not allowed"),
        ("f'{model.id}' == 'x'", "not allowed"),
        ("model.layers if True else 3", "not allowed"),
        ("(x := 3) > 2", "not allowed"),
        ("model.layers > 1e999", "not a constant"),
        ("model.layers > 10000000000000000000", "not a constant"),
        ("model.layers > 3j", "not a constant"),
        ("model.id == b'x'", "not a constant"),
        ("model.layers > ...", "not a constant"),
        ("", "not an expression"),
        ("import os", "not an expression"),
        ("model.layers > 3\nimport os", "line break"),
        ("model.id == '\\x41'", "backslash"),
        ("model.layers > 3 #" + "x" * MAX_LENGTH, "too long"),
        ("not " * 40 + "candidate.symmetric", "nested too deeply"),
        ("-" * 200 + "1 > 0", "nested too deeply"),
        ("(" * 250 + "1", "not an expression"),
    ],
)
def test_faults_name_what_is_wrong(text: str, fault: str) -> None:
    with pytest.raises(RuleError) as error:
        parse(text)
    assert fault in str(error.value)
    assert "\n" not in str(error.value)


def test_trace_keeps_what_a_line_saw() -> None:
    text = "model.billions > 10 and hardware.compute_capability >= 8.9"
    seen = trace(line(text, parse(text)), FACTS)
    assert (seen.held, seen.values) == (None, {"model.billions": 30.0, "hardware.compute_capability": None})
    assert seen.line() == f"unknown: {text} (model.billions 30.0, hardware.compute_capability unknown)"


def test_release_number() -> None:
    versions = {"0.11.2": 11, "1.3": 1003, "v2.0.1": 2000, None: None, "": None, "dev": None, "0.x": None}
    assert {version: release_number(version) for version in versions} == versions


def test_every_fact_is_documented_and_readable() -> None:
    for name, field in fields().items():
        assert field.doc
        assert build(["field", name])(FACTS) is not None or field.optional


def test_no_module_can_run_code() -> None:
    """No name that runs, imports or opens anything stands in these modules (``ast.parse`` only parses)."""
    for module in (expression, operands, evaluate):
        code = compile(Path(str(module.__file__)).read_text(), "x", "exec")
        names = _names(code)
        assert not names & {"eval", "exec", "compile", "__import__", "open", "getattr", "import_module", "globals"}


def _names(code: Any) -> set[str]:
    inner = [_names(constant) for constant in code.co_consts if hasattr(constant, "co_names")]
    return set(code.co_names).union(*inner)


_WORDS = st.sampled_from(
    [*fields(), "and", "or", "not", "in", "is", "None", "==", "<", ">=", "+", "*", "/", "-", "**", "(", ")", "[", "]",
     "3", "0", "1e18", "9" * 18, "'opt'", "True", "__import__('os')", ".", ",", "lambda:", "model", "if", "else",
     "for", "x", ":=", "f'{1}'", "@", "~", "{", "}", "await", "yield", "*", "print", "hardware.fp8"]
)  # fmt: skip
_LINES = st.one_of(
    st.text(max_size=320),
    st.text(alphabet="()[]{}-+*/%.~!=<>&|^'\"\\ntrueNoe019_:", max_size=320),
    st.lists(_WORDS, max_size=25).map(" ".join),
)
_SOME_FACTS = st.builds(
    Facts,
    st.builds(ModelFacts, st.text(max_size=5), st.text(max_size=5), st.integers(0, 10**400), layers=st.none()),
    st.builds(CandidateFacts, st.just("w4a16"), st.just("rtn"), st.integers(0, 16), bits_per_weight=st.floats()),
    hardware=st.builds(HardwareFacts, compute_capability=st.one_of(st.none(), st.floats())),
)


@settings(max_examples=400, deadline=2000)
@given(text=_LINES)
def test_any_text_parses_or_is_refused(text: str) -> None:
    """Whatever is written: a tree of known words, or RuleError in one line; never another exception."""
    try:
        tree = parse(text)
    except RuleError as error:
        assert len(str(error).splitlines()) <= 1
    else:
        assert build(tree)(FACTS) in (True, False, None)


_ATOMS = st.sampled_from(
    ["candidate.symmetric", "model.parameters > 3", "hardware.fp8", "candidate.weight_bits == 4"]
)
_SUMS = st.recursive(
    st.sampled_from(["model.parameters", "candidate.bits_per_weight", "0", "999999999999999999", "model.layers"]),
    lambda inner: st.builds(lambda a, op, b: f"({a} {op} {b})", inner, st.sampled_from("+-*/"), inner),
    max_leaves=8,
).map(lambda text: f"{text} > 0")
_CONDITIONS = st.recursive(
    st.one_of(_ATOMS, _SUMS),
    lambda inner: st.builds(lambda a, op, b: f"(not {a} {op} {b})", inner, st.sampled_from(["and", "or"]), inner),
    max_leaves=6,
)


@settings(max_examples=300, deadline=2000)
@given(text=_CONDITIONS, facts=_SOME_FACTS)
def test_any_condition_evaluates_on_any_facts(text: str, facts: Facts) -> None:
    """No overflow, no division by zero, no NaN comes out as an exception."""
    try:
        tree = parse(text)
    except RuleError:
        return
    assert build(tree)(facts) in (True, False, None)


def test_long_lines_are_fast() -> None:
    modules = set(sys.modules)
    texts = ["*".join(["999999999999999999"] * 15) + " > 1", "(" * 149 + ")" * 149, "not " * 74, "-" * 299, "[" * 299]
    start = time.perf_counter()
    for text in texts:
        for whole in (text, text + "1 > 0"):
            try:
                build(parse(whole[:MAX_LENGTH]))(FACTS)
            except RuleError:
                continue
    assert time.perf_counter() - start < 1
    assert not set(sys.modules) - modules
