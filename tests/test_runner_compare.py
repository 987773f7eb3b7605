"""qrun compare: the same windows for all, failures as lines, one table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from runner_models import make_workplace, qrun, recipe_data


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("compare"))


def write(root: Path, name: str, **more: str) -> Path:
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe_data(root, **more)), encoding="utf-8")
    return path


def test_recipes_side_by_side(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = [write(workplace, "eight", scheme="w8a16"), write(workplace, "two", scheme="w2a16-g32")]
    out = workplace / "comparison"
    assert qrun("compare", "--recipes", *two, "-o", out) == 0
    table = (out / "comparison.md").read_text(encoding="utf-8")
    assert table in capsys.readouterr().out
    rows = {line.split("|")[1].strip(): line.split("|") for line in table.splitlines() if line.startswith("| ")}
    assert rows["eight"][5].strip() == "–" and "%" in rows["two"][5]
    found = {name: json.loads((out / name / "results.json").read_text()) for name in ("eight", "two")}
    assert found["eight"]["windows"]["tokens_sha256"] == found["two"]["windows"]["tokens_sha256"]
    assert float(rows["two"][6]) == pytest.approx(found["two"]["measures"]["kl"]["value"], abs=1e-4)
    assert float(rows["eight"][6]) < float(rows["two"][6])


def test_a_backend_that_cannot_is_a_line(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(workplace, "gptq", scheme="w4a16-g32", method="gptq")
    assert qrun("compare", path, "--backends", "native,torchao", "-o", workplace / "backends") == 0
    shown = capsys.readouterr().out
    assert "| native | " in shown and "**torchao** could not carry it out: backend 'torchao' cannot" in shown


@pytest.mark.parametrize(
    "words", [["a.yaml"], ["--recipes", "a.yaml"], ["a.yaml", "b.yaml", "--backends", "native"], ["--recipes"]]
)
def test_what_cannot_be_compared_is_one_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert qrun("compare", *words) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_unlike_evaluations_are_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, data = write(workplace, "one"), recipe_data(workplace)
    data["evaluation"]["perplexity"]["windows"] = 41
    other = workplace / "other.yaml"
    other.write_text(yaml.safe_dump(data), encoding="utf-8")
    assert qrun("compare", "--recipes", one, other, "-o", workplace / "unlike") == 2
    assert "differ in model or evaluation" in capsys.readouterr().err
