"""The action's steps are extracted and run as a runner would; GitLab's script likewise; the hook takes many files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from runner_models import make_workplace, qrun, recipe_data, write_recipe

ROOT = Path(__file__).parents[1]
FAKE = """#!{python}
import json, os, pathlib, sys
pathlib.Path("called.json").write_text(json.dumps(sys.argv[1:]))
for word in sys.argv:
    name, _, file = word.partition("=")
    if file:
        pathlib.Path(file).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(file).write_text('{{"verdict": {{"status": "fail"}}}}' if name == "json" else "# report\\n")
sys.exit(int(os.environ["FAKE_CODE"]))
"""


def _place(tmp_path: Path, code: int) -> dict[str, str]:
    """A folder whose qrun only notes its words, and the environment of a CI step there."""
    command = tmp_path / "bin" / "qrun"
    command.parent.mkdir()
    command.write_text(FAKE.format(python=sys.executable))
    command.chmod(0o755)
    path = f"{command.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    files = {name: str(tmp_path / name.lower()) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    return {"PATH": path, "FAKE_CODE": str(code), "CI_PROJECT_DIR": str(tmp_path), **files}


def _bash(script: str, tmp_path: Path, environment: dict[str, str]) -> tuple[int, list[str]]:
    done = subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=tmp_path, env=environment, check=False)
    called = tmp_path / "called.json"
    return done.returncode, yaml.safe_load(called.read_text()) if called.exists() else []


def _step(inputs: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The judging step's script and environment, its inputs filled in."""
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    given = {name: str(one.get("default", "")) for name, one in action["inputs"].items()} | inputs
    step = next(step for step in action["runs"]["steps"] if step.get("id") == "judge")
    assert "${{" not in step["run"], "inputs reach scripts through the environment only"
    return step["run"], {
        key: re.sub(r"\$\{\{ inputs\.([a-z]+) \}\}", lambda match: given[match[1]], value)
        for key, value in step["env"].items()
    }


@pytest.mark.parametrize("code", [0, 1, 2])
@pytest.mark.parametrize("checkpoint", ["", "out"])
def test_the_actions_step(code: int, checkpoint: str, tmp_path: Path) -> None:
    script, own = _step({"recipe": "my recipe.yaml", "checkpoint": checkpoint, "baseline": "accepted.json"})
    found, words = _bash(script, tmp_path, _place(tmp_path, code) | own)
    assert found == code
    first = ["gate", "out", "--recipe", "my recipe.yaml"] if checkpoint else ["my recipe.yaml", "--overwrite"]
    assert words[: len(first)] == first
    assert words[-2:] == ["--baseline", "accepted.json"]
    assert "sarif=quantrecipe-reports/quantrecipe.sarif" in words
    assert (tmp_path / "github_output").read_text() == f"verdict=fail\nexit-code={code}\n"
    assert (tmp_path / "github_step_summary").read_text() == "# report\n"


def test_gitlabs_script(tmp_path: Path) -> None:
    job = yaml.safe_load((ROOT / "templates" / "quantrecipe.gitlab-ci.yml").read_text())[".quantrecipe-gate"]
    own = {name: str(value) for name, value in job["variables"].items()} | {"CHECKPOINT": "out"}
    found, words = _bash("\n".join(job["script"]), tmp_path, _place(tmp_path, 1) | own)
    assert found == 1
    assert words[:4] == ["gate", "out", "--recipe", "recipe.yaml"]
    assert "--baseline" not in words
    assert (tmp_path / job["artifacts"]["reports"]["junit"]).exists()


def test_the_hook_validates_recipes_and_names_each_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["entry"] == "qrun validate"
    for name, wanted in (("recipe.yaml", True), ("models/a.recipe.yml", True), ("recipes.yaml", False)):
        assert bool(re.search(hook["files"], name)) is wanted
    place = make_workplace(tmp_path)
    good = write_recipe(place)
    bad = tmp_path / "bad.recipe.yaml"
    bad.write_text(yaml.safe_dump(recipe_data(place, gates={"max_kll": 1})))
    assert qrun("validate", good) == 0
    assert qrun("validate", good, bad, bad) == 2
    said = capsys.readouterr()
    assert "valid; " in said.out
    assert said.err.count("unknown key gates.max_kll") == 2
