"""A repository whose recipe is gated: accept a baseline, then harmless, harmful, broken, too few windows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import gate_files
import pytest
import torch
import yaml
from runner_models import qrun
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.slow

LAYERS = ["model.layers.0.mlp.down_proj", "model.layers.1.self_attn.v_proj", "model.layers.2.mlp.up_proj"]


def _recipe(groups: dict[str, Any], windows: int = 160, **gates: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "model": {"id": "demo"},
        "quantization": {"config_groups": groups},
        "calibration": {"samples": 16, "sequence_length": 128},
        "evaluation": {"perplexity": {"sequence_length": 128, "windows": windows, "extend_to": windows}},
        "gates": {"max_perplexity_increase": "5%", "max_kl": 0.1, **gates},
        "output": {"path": "out"},
    }


PLAIN = {"main": {"scheme": "w4a16-g64", "method": "rtn"}}


class Repository:
    """A working folder with the files that a team commits, and commands that are run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def commit(self, recipe: dict[str, Any]) -> None:
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")

    def run(self, *words: object) -> tuple[int, dict[str, str], list[dict[str, Any]]]:
        """Exit code, JUnit's outcomes, SARIF's results; all files checked against their schemas."""
        formats = [f"--format={name}=reports/{name}.out" for name in ("junit", "sarif", "json", "html", "github")]
        code = qrun(*words, *formats)
        reports = self.folder / "reports"
        gate_files.results(reports / "json.out")
        return code, gate_files.junit(reports / "junit.out"), gate_files.sarif(reports / "sarif.out")


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose first checkpoint passed and was accepted."""
    folder = tmp_path_factory.mktemp("repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("QUANTRECIPE_CACHE", str(folder / "cache"))
        repository = Repository(folder)
        repository.commit(_recipe(PLAIN))
        code, cases, _ = repository.run("recipe.yaml")
        assert code == 0
        assert set(cases.values()) == {"pass"}
        assert qrun("baseline", "accept", "out") == 0
    return folder


@pytest.fixture
def repository(accepted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A clone of it."""
    shutil.copytree(accepted, tmp_path / "clone")
    monkeypatch.chdir(tmp_path / "clone")
    monkeypatch.setenv("QUANTRECIPE_CACHE", str(accepted / "cache"))
    return Repository(tmp_path / "clone")


BASELINE = ("--baseline", "quantrecipe-baseline.json")


def test_a_harmless_change_passes(repository: Repository) -> None:
    repository.commit(_recipe({"main": {"scheme": "w4a16-g64", "method": "gptq"}}))
    code, cases, found = repository.run("recipe.yaml", "--overwrite", *BASELINE)
    assert code == 0
    assert cases["max_baseline_increase"] == "pass"
    assert {result["kind"] for result in found} == {"pass"}


def test_a_harmful_change_fails_and_names_the_layers(repository: Repository) -> None:
    repository.commit(_recipe(PLAIN | {"fewer": {"targets": LAYERS, "scheme": "w2a16-g64"}}))
    code, cases, found = repository.run("recipe.yaml", "--overwrite", *BASELINE)
    assert code == 1
    assert (cases["max_baseline_increase"], cases["integrity"]) == ("failure", "pass")
    failed = next(result for result in found if result["ruleId"] == "max_baseline_increase")
    named = [place["fullyQualifiedName"] for place in failed["locations"][0]["logicalLocations"]]
    assert sorted(named) == sorted(LAYERS)
    line = failed["locations"][0]["physicalLocation"]["region"]["startLine"]
    assert (repository.folder / "recipe.yaml").read_text().splitlines()[line - 1].startswith("gates")
    for report in ("html.out", "github.out", "junit.out"):
        text = (repository.folder / "reports" / report).read_text()
        assert all(layer in text for layer in LAYERS)
    assert (repository.folder / "reports" / "github.out").read_text().startswith("::error file=recipe.yaml,line=")
    assert "more bits" in (repository.folder / "out" / "report.md").read_text()
    assert qrun("baseline", "accept", "out") == 2


def test_the_same_checkpoint_is_judged_without_quantizing(repository: Repository) -> None:
    code, cases, _ = repository.run("gate", "out", "--recipe", "recipe.yaml", *BASELINE)
    assert code == 0
    assert set(cases.values()) == {"pass"}
    held = gate_files.results(repository.folder / "quantrecipe-gate" / "results.json")
    before = gate_files.results(repository.folder / "out" / "results.json")
    assert held["measures"]["increase"]["value"] == pytest.approx(before["measures"]["increase"]["value"], rel=1e-5)
    assert held["size"]["bits_per_weight"] == pytest.approx(before["size"]["bits_per_weight"], rel=1e-3)
    errors = {layer["name"]: layer["relative_error"] for layer in before["layers"]}
    for layer in held["layers"]:
        assert layer["relative_error"] == pytest.approx(errors[layer["name"]], rel=1e-2)


def test_a_nan_scale_fails_integrity(repository: Repository) -> None:
    file = repository.folder / "out" / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("weight_scale"))
    tensors[name][0, 0] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    code, cases, found = repository.run("gate", "out", "--recipe", "recipe.yaml")
    assert code == 1
    assert (cases["integrity"], cases["max_kl"]) == ("failure", "error")
    assert found[0]["level"] == "error"
    report = (repository.folder / "quantrecipe-gate" / "report.md").read_text()
    assert "is damaged" in report
    assert name.removesuffix(".weight_scale") in report


def test_too_few_windows_are_unsure_and_extend(repository: Repository) -> None:
    recipe = _recipe(PLAIN, windows=8, max_perplexity_increase="1.4%")
    repository.commit(recipe)
    code, cases, found = repository.run("gate", "out", "--recipe", "recipe.yaml")
    assert (code, cases["max_perplexity_increase"]) == (2, "error")
    assert "more windows would settle it" in found[1]["message"]["text"]
    assert [qrun("gate", "out", "--recipe", "recipe.yaml", "--unsure", policy) for policy in ("fail", "pass")] == [
        1,
        0,
    ]
    recipe["evaluation"]["perplexity"]["extend_to"] = None
    repository.commit(recipe)
    code, cases, _ = repository.run("gate", "out", "--recipe", "recipe.yaml")
    held = gate_files.results(repository.folder / "quantrecipe-gate" / "results.json")
    assert (code, cases["max_perplexity_increase"]) == (0, "pass")
    assert 1 < len(held["looks"]) <= 5
    assert held["gates"][1]["confidence"] > 0.95


def test_diff_says_what_changed(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    repository.commit(_recipe(PLAIN | {"fewer": {"targets": LAYERS, "scheme": "w2a16-g64"}}))
    assert qrun("recipe.yaml", "--overwrite") in (0, 1)
    capsys.readouterr()
    assert qrun("diff", "quantrecipe-baseline.json", "out") == 0
    said = capsys.readouterr().out
    assert "significant at 95%" in said
    assert all(f"layer {layer}: w4a16-g64 became w2a16-g64" in said for layer in LAYERS)
    assert "+    fewer:" in said
    assert qrun("diff", "out", "out") == 0
    assert "loss: the same over 160 windows" in capsys.readouterr().out
