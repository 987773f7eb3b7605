"""qadvise rules: list, show, check; every fault one line with file, line, value, what is allowed, nearest."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantrecipe.errors import QuantRecipeError
from quantrecipe.rules import cli
from quantrecipe.rules.checking import check_pack
from quantrecipe.rules.loader import PACKS, builtin_rules

GOOD = """pack: mine
title: My pack
about: For a test.
rules:
  - id: mine/one
    title: a rule of mine
    when:
      - model.parameters > 3
    effect: prefer
    weight: 1.5
    value: {smoothquant_alpha: 0.5}
    finding: some finding
    advice: some advice
    source: a test
    stands_on: [text]
    evidence:
      - {file: gptq.csv, where: {model: OPT-66B, weight_bits: [3, 4]}}
    limits: none known
"""


@pytest.fixture(autouse=True)
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_plugin_packs", list)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.rules, arguments)


def check(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "p.yaml"
    path.write_text(text, encoding="utf-8")
    found = check_pack(path)
    return [line.removeprefix(f"{tmp_path}/") for line in found] if isinstance(found, list) else []


def test_list_names_every_rule_once_within_100_columns() -> None:
    result = run()
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= 100
    listed = [line.split()[0] for line in lines if line.startswith("  ") and "/" in line.split()[0]]
    assert sorted(set(listed) & {rule.id for rule in builtin_rules()}) == sorted(rule.id for rule in builtin_rules())


@pytest.mark.parametrize("ident", [rule.id for rule in builtin_rules()][::10])
def test_show_prints_all_parts_within_100_columns(ident: str) -> None:
    result = run("show", ident)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 100
    for head in ("effect", "when", "finding", "advice", "source", "limits"):
        assert f"\n  {head:9} " in result.output


def test_show_unknown_names_the_nearest() -> None:
    result = run("show", "gptq/act-oder")
    assert isinstance(result.exception, QuantRecipeError)
    assert "did you mean 'gptq/act-order'" in str(result.exception)


def test_own_pack_is_listed_and_overrides_are_said(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(GOOD.replace("mine/one", "gptq/act-order"))
    result = run("--rules", str(path))
    assert f"gptq/act-order: {path} overrides quantrecipe" in result.output
    assert "a rule of mine" in run("show", "gptq/act-order", "--rules", str(path)).output


def test_check_accepts_a_good_pack_and_every_shipped_one(tmp_path: Path) -> None:
    assert check(tmp_path, GOOD) == []
    result = run("check", str(tmp_path / "p.yaml"))
    assert (result.exit_code, result.output) == (0, f"{tmp_path}/p.yaml: 1 rule, no faults\n")
    for path in PACKS.glob("*.yaml"):
        assert run("check", str(path)).exit_code == 0


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("model.parameters", "model.paramters", "p.yaml:8: rule mine/one when 1; unknown fact: 'model.paramters'"),
        ("> 3", "> 'x'", "p.yaml:8: rule mine/one when 1; cannot compare a number with a text"),
        ("    effect:", "    efect: note\n    effect:", "p.yaml:9: rule mine/one efect: unknown key; allowed: id"),
        ("    effect:", "    efect: note\n    effect:", "did you mean 'effect'?"),
        ("effect: prefer", "effect: preffer", "p.yaml:9: rule mine/one effect: 'preffer'; Input should be"),
        ("effect: prefer", "effect: preffer", "did you mean 'prefer'?"),
        ("effect: prefer", "effect: note", "effect 'prefer' and a weight other than 0 go together"),
        ("weight: 1.5", "weight: 0", "effect 'prefer' and a weight other than 0 go together"),
        ("weight: 1.5", "weight: 99", "p.yaml:10: rule mine/one weight: 99"),
        ("weight: 1.5", "weight: .nan", "p.yaml:10: rule mine/one weight"),
        ("weight: 1.5", "require: [candidate.symmetric]", "effect 'require' and the lines under require: go"),
        ("smoothquant_alpha: 0.5", "smoothquant_alpa: 0.5", "did you mean 'smoothquant_alpha'?"),
        ("smoothquant_alpha: 0.5", "smoothquant_alpha: 5", "setting smoothquant_alpha is 5; allowed: 0 to 1"),
        ("smoothquant_alpha: 0.5", "act_order: 1", "setting act_order is 1; allowed: False to True"),
        ("    limits: none known\n", "", "p.yaml:5: rule mine/one limits; Field required"),
        ("[text]", "[gossip]", "p.yaml:15: rule mine/one stands_on 1: 'gossip'"),
        ("mine/one", "one", "p.yaml:5: rule one id: 'one'; String should match pattern"),
        ("file: gptq.csv", "file: gptqq.csv", "p.yaml:17: rule mine/one evidence 1: no such table: 'gptqq.csv'; did"),
        ("file: gptq.csv", "file: ../x.csv", "p.yaml:17: rule mine/one evidence 1 file: '../x.csv'"),
        ("model: OPT-66B", "modl: OPT-66B", "did you mean 'model'"),
        ("model: OPT-66B", "model: OPT-67B", "selects no row of gptq.csv"),
        ("pack: mine", "pack: mine\npack: mine", "p.yaml:2: not valid YAML; key 'pack' twice"),
        ("title: My pack", "title: &a My pack\nabout: *a", "p.yaml:3: not valid YAML; aliases are not allowed"),
        ("title: My pack", "[a]: 3", "p.yaml:2: not valid YAML; a key must be a plain word"),
        ("title: My pack", "title: !!python/object:os.system x", "p.yaml:2: not valid YAML"),
        ("title: My pack", "title: " + "[" * 50, "nested deeper than 40 levels"),
        (GOOD, "", "p.yaml:1: pack; Input should be a valid dictionary"),
        (GOOD, "- 3", "p.yaml:1: pack; Input should be a valid dictionary"),
        (GOOD, "a: b: c", "p.yaml:1: not valid YAML"),
        ("  - id: mine/one", "  - 3\n  - id: mine/one", "p.yaml:5: rule 1: 3; Input should be a valid dictionary"),
    ],
)  # fmt: skip
def test_each_fault_is_one_line(tmp_path: Path, old: str, new: str, fault: str) -> None:
    found = check(tmp_path, GOOD.replace(old, new))
    assert any(fault in line for line in found), found
    assert all("\n" not in line for line in found)
    result = run("check", str(tmp_path / "p.yaml"))
    assert result.exit_code == 2
    assert fault in result.output


def test_a_forbid_rule_needs_conditions(tmp_path: Path) -> None:
    text = GOOD.replace("prefer\n    weight: 1.5", "forbid").replace("    when:\n      - model.parameters > 3\n", "")
    assert "needs lines under when:" in check(tmp_path, text)[0]


def test_preview_rules_cannot_reject(tmp_path: Path) -> None:
    text = GOOD.replace("effect: prefer\n    weight: 1.5", "effect: forbid\n    status: preview")
    assert "a preview rule cannot reject" in check(tmp_path, text)[0]


def test_the_same_id_twice(tmp_path: Path) -> None:
    rule = GOOD.partition("rules:\n")[2]
    assert "'mine/one' stands twice" in check(tmp_path, GOOD + rule)[0]


@pytest.mark.parametrize("path", ["nowhere.yaml", ".", "a\0b", "x" * 5000])
def test_unreadable_files(tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("check", path)
    assert result.exit_code == 2
    assert "cannot read the rule pack" in result.output


def test_binary_and_large_files(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "l").write_bytes(b"a" * 1_000_001)
    assert "not UTF-8" in run("check", str(tmp_path / "b")).output
    assert "too large" in run("check", str(tmp_path / "l")).output


_PIECES = st.sampled_from(GOOD.splitlines(keepends=True))
_NOISE = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["&a ", "*a", "!!set ", "{", "[", "- ", ": ", "? ", "|\n", "1e999", "0o7", "2024-99-99", "~", "=", "<<: "]
    ),
)


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.one_of(_PIECES, _NOISE), max_size=25))
def test_any_file_checks_or_is_refused(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_text("".join(lines), encoding="utf-8", errors="surrogatepass")
    found = check_pack(path)
    if isinstance(found, list):
        assert found and all(len(line.splitlines()) <= 1 for line in found)


@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(GOOD)), drop=st.integers(0, 30), noise=_NOISE)
def test_any_slip_of_the_pen_checks_or_is_refused(tmp_path: Path, at: int, drop: int, noise: str) -> None:
    path = tmp_path / "slip.yaml"
    path.write_text(GOOD[:at] + noise + GOOD[at + drop :], encoding="utf-8", errors="surrogatepass")
    found = check_pack(path)
    assert found
