"""Whole runs on small random models with the native backend: what is left, what is measured, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from runner_models import make_workplace, qrun, recipe, recipe_data, write_recipe
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from quantrecipe.errors import DamageError, QuantRecipeError
from quantrecipe.modeling.folder import sha256_file
from quantrecipe.plugins.contract import Checkpoint
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.runner.baseline import read_results
from quantrecipe.runner.pipeline import run
from quantrecipe.runner.result import Result
from quantrecipe.runner.results_schema import results_schema
from quantrecipe.runner.verify_process import answer


@pytest.fixture
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verify here instead of in a fresh process, which takes seconds to import its libraries."""
    monkeypatch.setattr("quantrecipe.runner.verify.ask", lambda request, _: answer(request.to_json()))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def done(place: Path) -> Result:
    gates = {"max_kl": 5.0, "max_size": "1MB"}
    return run(recipe(place, scheme="w4a16-g32", method="gptq", gates=gates), command="qrun recipe.yaml")


def test_the_output_is_whole_and_nothing_else_is_left(place: Path, done: Result) -> None:
    names = {path.name for path in done.output.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "recipe.yaml",
            "provenance.json", "results.json", "report.md", "report-layers.svg"} <= names  # fmt: skip
    assert sorted(path.name for path in place.iterdir() if path.name.startswith(".")) == []
    assert done.exit_code == 0
    assert [gate.name for gate in done.gates if gate.outcome == "pass"] == ["integrity", "max_kl", "max_size"]


def test_provenance_names_inputs_and_outputs_and_no_time(place: Path, done: Result) -> None:
    record = json.loads((done.output / "provenance.json").read_text())
    assert record["inputs"]["model.safetensors"] == sha256_file(place / "model" / "model.safetensors")
    assert record["outputs"]["model.safetensors"] == sha256_file(done.output / "model.safetensors")
    assert set(record["weights"]) == {layer["name"] for layer in done.results["layers"]}
    assert "seconds" not in json.dumps(record)


def test_perplexity_is_that_of_the_checkpoint_as_transformers_loads_it(place: Path, done: Result) -> None:
    tokenizer = AutoTokenizer.from_pretrained(done.output)
    ids = tokenizer((place / "heldout.txt").read_text(), add_special_tokens=False)["input_ids"]
    count = done.measures.convention.windows_available  # type: ignore[union-attr]
    chosen = [index * count // 50 for index in range(50)]
    tokens = torch.tensor([[tokenizer.bos_token_id, *ids[31 * i : 31 * i + 31]] for i in chosen])
    for folder, found in (
        (place / "model", done.measures.perplexity),  # type: ignore[union-attr]
        (done.output, done.measures.quantized_perplexity),  # type: ignore[union-attr]
    ):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.inference_mode():
            loss = float(model(tokens, labels=tokens).loss)
        assert found == pytest.approx(float(torch.tensor(loss).exp()), rel=1e-5)


def test_results_report_and_rerendering_agree(done: Result, tmp_path: Path) -> None:
    report = (done.output / "report.md").read_text()
    assert report.splitlines()[2] == done.sentence
    assert "qrun recipe.yaml" in report
    assert json.loads((done.output / "results.json").read_text()) == json.loads(json.dumps(done.results))
    assert qrun("report", done.output / "results.json", "-o", tmp_path / "report.md") == 0
    assert (tmp_path / "report.md").read_text() == report
    assert (tmp_path / "report-layers.svg").read_text() == (done.output / "report-layers.svg").read_text()


def test_each_stage_has_its_time_and_memory(done: Result) -> None:
    names = [stage["name"] for stage in done.results["stages"]]
    assert names == ["resolve", "preflight", "quantize", "finish", "verify (fresh process)", "evaluate"]
    assert all(stage["peak_memory"] > 10**7 for stage in done.results["stages"])


@pytest.mark.usefixtures("same_process")
def test_the_same_recipe_gives_the_same_bytes(place: Path, done: Result, tmp_path: Path) -> None:
    again = run(recipe(place, scheme="w4a16-g32", method="gptq", gates={"max_kl": 5.0}), output=tmp_path / "again")
    for name in ("model.safetensors", "config.json"):
        assert (again.output / name).read_bytes() == (done.output / name).read_bytes()


def test_verify_command_finds_nothing_wrong(place: Path, done: Result, capsys: pytest.CaptureFixture[str]) -> None:
    assert qrun("verify", done.output, "--original", place / "model") == 0
    said = capsys.readouterr().out
    assert "bits a weight" in said
    assert "unchecked" not in said
    assert said.rstrip().endswith("sound")


def _copy(done: Result, folder: Path) -> Path:
    folder.mkdir()
    for path in done.output.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def _change(folder: Path, change: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _nan_scale(tensors: dict[str, torch.Tensor]) -> None:
    next(tensor for name, tensor in tensors.items() if name.endswith("weight_scale"))[0, 0] = float("nan")


def _drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[next(name for name in tensors if name.endswith("weight_shape"))]


def _swap(tensors: dict[str, torch.Tensor]) -> None:
    first, second = (f"model.layers.{i}.self_attn.q_proj.weight_packed" for i in (0, 1))
    tensors[first], tensors[second] = tensors[second], tensors[first]


def _flip(tensors: dict[str, torch.Tensor]) -> None:
    next(tensor for name, tensor in tensors.items() if name.endswith("weight_packed"))[0, 0] ^= 1


@pytest.mark.parametrize("change", [_nan_scale, _drop, _swap, _flip])
def test_verify_command_finds_damage(
    change: Any, done: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy(done, tmp_path / "copy")
    _change(folder, change)
    assert qrun("verify", folder) == 1
    assert "model.safetensors has changed" in capsys.readouterr().out


@pytest.mark.parametrize("change", [_nan_scale, _drop])
def test_structure_shows_damage_without_provenance(
    change: Any, done: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy(done, tmp_path / "copy")
    (folder / "provenance.json").unlink()
    _change(folder, change)
    assert qrun("verify", folder) == 1
    said = capsys.readouterr().out
    assert "DAMAGED" in said
    assert "unchecked  hashes" in said


class Damaging(NativeBackend):
    """Quantizes well, then harms what it wrote."""

    def __init__(self, change: Any) -> None:
        self.change = change

    def quantize(self, job: Any) -> Checkpoint:
        found = super().quantize(job)
        _change(found.path, self.change)
        return found


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize("change", [_nan_scale, _swap, _flip])
def test_a_run_whose_checkpoint_reads_back_differently_fails_and_leaves_nothing(
    change: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantrecipe.runner.capability.backend", lambda _: Damaging(change))
    with pytest.raises(DamageError, match="damaged") as caught:
        run(recipe(place), output=tmp_path / "out")
    assert caught.value.exit_code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("same_process")
def test_a_failed_gate_is_exit_1_and_the_checkpoint_stays(place: Path, tmp_path: Path) -> None:
    data = recipe_data(place, scheme="w2a16-g32", gates={"max_kl": 1e-9}, output={"path": str(tmp_path / "out")})
    assert qrun(write_recipe(place, data)) == 1
    assert "**fails** on `max_kl`" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.usefixtures("same_process")
def test_unmeasured_gates_are_unsure_and_exit_2(place: Path, tmp_path: Path) -> None:
    data = recipe_data(place, gates={"max_kl": 1.0}, output={"path": str(tmp_path / "out")})
    data["evaluation"] = {"perplexity": None}
    assert qrun(write_recipe(place, data)) == 2
    assert "unsure" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.usefixtures("same_process")
def test_the_report_can_lie_elsewhere_and_moves_with_the_output(place: Path, tmp_path: Path) -> None:
    data = {"path": "out", "report": "out/deep/r.md"}
    found = run(recipe(place, output=data), output=tmp_path / "new")
    assert found.report == tmp_path / "new" / "deep" / "r.md"
    assert "r-layers.svg" in found.report.read_text()
    assert (tmp_path / "new" / "deep" / "r-layers.svg").exists()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "case",
    [
        ("llama", "w8a8", "rtn", "transformers"),
        ("qwen3", "w4a8-g32", "gptq", "transformers"),
        ("gpt2", "w4a16-g32", "gptq", "reader"),
        ("bloom", "w3a16-g32-asym", "gptq", "reader"),
        ("falcon", "w4a16-g32", "gptq", "reader"),
        ("opt-350m", "w8a8", "rtn", "transformers"),
        ("gemma2", "w4a16-g32-asym", "rtn", "transformers"),
        ("gpt-neox", "w8a16", "rtn", "transformers"),
    ],
)
def test_families_and_schemes(case: tuple[str, str, str, str], dtype: torch.dtype, tmp_path: Path) -> None:
    family, scheme, method, loader = case
    root = make_workplace(tmp_path, family, dtype)
    found = run(recipe(root, scheme=scheme, method=method))
    assert loader in found.results["verified"]["loader"]
    assert found.measures is not None
    assert found.measures.kl is not None
    assert 0 <= found.measures.kl.value < 0.5
    assert qrun("verify", found.output, "--original", root / "model") == 0


def test_tasks_without_lm_eval_are_refused_rather_than_left_out(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quantrecipe.runner.tasks.find_spec", lambda _: None)
    with pytest.raises(QuantRecipeError, match=r"need lm-eval.*pip install"):
        run(recipe(place, evaluation={"tasks": ["arc_easy"]}), output=tmp_path / "out")


def test_results_keep_to_the_published_schema(done: Result) -> None:
    schema = json.loads((Path(__file__).parents[1] / "docs" / "results.schema.json").read_text())
    assert schema == results_schema()
    held = json.loads((done.output / "results.json").read_text())
    jsonschema.validate(held, schema)
    assert read_results(done.output / "results.json") == held
    rows = held["windows"]
    assert len(rows["index"]) == len(rows["quantized"]) == 50
    counted = held["measures"]["convention"]["counted_tokens"]
    for lines in held["profile"].values():
        assert sum(line["tokens"] for line in lines) == counted


def test_generations_are_what_transformers_writes(place: Path, done: Result) -> None:
    row = done.results["generations"][0]
    tokenizer = AutoTokenizer.from_pretrained(place / "model")
    model = AutoModelForCausalLM.from_pretrained(place / "model").eval()
    ids = tokenizer(row["prompt"], return_tensors="pt", add_special_tokens=False)["input_ids"]
    given = torch.cat([torch.tensor([[tokenizer.bos_token_id]]), ids], dim=1)
    out = model.generate(given, do_sample=False, max_new_tokens=row["tokens"], min_new_tokens=row["tokens"])
    assert tokenizer.decode(out[0, given.shape[1] :], skip_special_tokens=True) == row["original"]
