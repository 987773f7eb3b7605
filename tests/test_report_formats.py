"""Every format of one result: valid by its schema, safe against what texts hold, the one that a CI reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gate_files
import pytest
from runner_models import qrun

from quantrecipe.errors import QuantRecipeError
from quantrecipe.runner.diff import differences
from quantrecipe.runner.report.formats import RENDERERS, Wanted, deliver, detected, parse_formats

RESULTS = Path(__file__).parent / "data" / "results.json"
HOSTILE = '<script>alert(1)</script>|`"\x07]]>&::error::%0A\n---'


@pytest.fixture
def results() -> dict[str, Any]:
    return gate_files.results(RESULTS)


@pytest.fixture
def hostile(results: dict[str, Any]) -> dict[str, Any]:
    """The same with markup wherever a model or a text has a say."""
    results["model"]["id"] = results["output"]["name"] = HOSTILE
    results["generations"][0] |= {"prompt": HOSTILE, "original": HOSTILE, "quantized": HOSTILE}
    results["gates"][1]["why"] = results["suspects"][0]["why"] = HOSTILE
    results["layers"][0]["name"] = results["suspects"][0]["name"] = HOSTILE
    results["recipe"] += f"# ```\n# {HOSTILE}"
    results["verdict"]["sentence"] = "it fails"
    return results


@pytest.mark.parametrize("kind", ["results", "hostile"])
def test_junit_and_sarif_are_valid(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    held = request.getfixturevalue(kind)
    deliver(held, parse_formats((f"junit={tmp_path}/a/j.xml", f"sarif={tmp_path}/s.json"), {}), {})
    cases, found = gate_files.junit(tmp_path / "a" / "j.xml"), gate_files.sarif(tmp_path / "s.json")
    assert cases["max_perplexity_increase"] == "failure"
    assert cases["max_task_drop:builtin:endings"] == "error"
    assert [result["level"] for result in found] == ["none", "error", "none", "warning"]
    line = found[1]["locations"][0]["physicalLocation"]["region"]["startLine"]
    assert line == held["recipe_file"]["gates"]["max_perplexity_increase"]


def test_html_holds_everything_and_runs_nothing(hostile: dict[str, Any]) -> None:
    page = RENDERERS["html"](hostile)
    assert "<script" not in page
    assert page.count("<svg") == 1
    assert "src=" not in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert page.count("<details>") == page.count("</details>") >= 2


def test_github_annotations_are_one_line_each(hostile: dict[str, Any]) -> None:
    lines = RENDERERS["github"](hostile).splitlines()
    assert [line.partition(" ")[0] for line in lines[:-1]] == ["::error", "::warning"]
    assert lines[0].startswith("::error file=recipe.yaml,line=")
    assert "%250A" in lines[0]


def test_the_terminal_names_layers_and_what_to_try(results: dict[str, Any]) -> None:
    said = RENDERERS["terminal"](results)
    assert "fail    max_perplexity_increase" in said
    assert "model.layers.0.mlp.down_proj: w4a16-g64 became w2a16-g64" in said
    assert "gptq instead of rtn" in said


def test_each_ci_gets_what_it_reads(tmp_path: Path, results: dict[str, Any]) -> None:
    assert detected({}) == [Wanted("terminal")]
    assert [one.name for one in detected({"GITLAB_CI": "true"})] == ["terminal", "junit"]
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    printed = deliver(results, detected(environment), environment)
    assert printed.startswith("::error")
    assert summary.read_text().startswith("before\n# demo: quantization report")


@pytest.mark.parametrize(("word", "said"), [("junnit", "did you mean 'junit'"), ("junit=", "without its file")])
def test_formats_that_make_no_sense(word: str, said: str) -> None:
    with pytest.raises(QuantRecipeError, match=said):
        parse_formats((word,), {})


def test_results_that_are_damaged_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = json.loads(RESULTS.read_text())
    path = tmp_path / "results.json"
    for change in ({"schema": 7}, {"gates": [{"name": 1}]}, {"extra": 1}):
        path.write_text(json.dumps(held | change))
        assert qrun("report", path, "--format", "terminal") == 2
        said = capsys.readouterr().err
        assert "not a results.json" in said
        assert len(said.splitlines()) == 1


def test_a_result_differs_from_itself_in_nothing(results: dict[str, Any]) -> None:
    lines = list(differences(results, results))
    assert lines[2:] == ["loss: the same over 6 windows"]


def test_baselines_that_fail_are_accepted_only_by_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = tmp_path / "deep" / "accepted.json"
    assert qrun("baseline", "accept", RESULTS, "--to", to) == 2
    assert "does not pass its gates" in capsys.readouterr().err
    assert qrun("baseline", "accept", RESULTS, "--to", to, "--force") == 0
    assert gate_files.results(to) == gate_files.results(RESULTS)
