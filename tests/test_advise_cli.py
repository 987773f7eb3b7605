"""qadvise as a command: formats, subcommands, bad input, what it imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantrecipe.advisor import cli as command
from quantrecipe.recipe_file import load_recipe, parse_recipe

ROOT = Path(__file__).parents[1]
BLOOM = ["--model", "bloom-7b1", "--mem", "10GB"]


def run(*args: str) -> Any:
    return CliRunner().invoke(command.cli, list(args))


def guarded(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = command._guarded(args)
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def test_text_leads_with_the_answer_and_fits_100_columns() -> None:
    lines = run(*BLOOM).output.splitlines()
    assert lines[0].startswith("bloom-7b1 in 10GB") and "by" in lines[1]
    assert max(map(len, lines)) <= 100
    assert "\x1b" not in "".join(lines)


def test_json_has_the_published_shape() -> None:
    schema = json.loads((ROOT / "docs" / "advice.schema.json").read_text(encoding="utf-8"))
    for args in (BLOOM, ["--family", "bloom", "--mem", "16GB"], ["--model", "opt-175b", "--mem", "8GB"]):
        answer = json.loads(run(*args, "--format", "json").output)
        jsonschema.validate(answer, schema)
    assert answer["recommended"] is None and answer["counter_offers"]


def test_json_lines_add_up() -> None:
    memory = json.loads(run(*BLOOM, "--format", "json").output)["recommended"]["memory"]
    names = ("weights_bytes", "kv_cache_bytes", "activations_bytes", "overhead_bytes")
    assert memory["total_bytes"] == sum(memory[name] for name in names)
    assert memory["weights_bytes"] == sum(memory["groups"].values())


def test_yaml_is_the_recipe() -> None:
    assert parse_recipe(run(*BLOOM, "--format", "yaml").output).model.id == "bigscience/bloom-7b1"


def test_markdown_is_whole() -> None:
    text = run(*BLOOM, "--format", "markdown").output
    assert text.startswith("## bloom-7b1") and "### Why" in text and "```yaml" in text


def test_output_writes_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    assert run(*BLOOM, "-o", str(path)).exit_code == 0
    assert load_recipe(path).target.memory == "10GB"


def test_explain_shows_lines_that_held_and_lines_that_did_not() -> None:
    text = run(*BLOOM, "--explain").output
    assert "yes: candidate." in text and "no: " in text and "evidence:" in text


def test_what_if_marks_what_fits() -> None:
    text = run(*BLOOM, "--what-if").output
    assert "total GB (* fits, ? edge)" in text and "*" in text.split("total GB")[1]


@pytest.mark.parametrize(("suffix", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_plot(tmp_path: Path, suffix: str, head: bytes) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"frontier.{suffix}"
    assert run(*BLOOM, "--plot", str(path)).exit_code == 0
    assert path.read_bytes().startswith(head)


def test_memory_command() -> None:
    answer = json.loads(run("memory", "-m", "bloom-176b", "-s", "w3a16-g128-asym", "--format", "json").output)
    assert answer["memory"]["output_format"] == "gptq_v2"
    text = run("memory", "-m", "llama-3-70b", "-s", "w4a16-g128", "--mem", "80GB", "--gpus", "2", "--what-if").output
    assert (
        "serving fits, weights alone fits" in text and "each of 2 devices holds" in text and "To quantize it" in text
    )


def test_predict_command() -> None:
    answer = json.loads(run("predict", "-m", "bloom-176b", "-s", "w3a16-g128-asym", "--format", "json").output)
    quality = answer["quality"]
    assert 0 < quality["relative_increase"] < 0.05 and quality["evidence"] and quality["baseline"] == 8.11
    text = run("predict", "-m", "bloom-176b", "-s", "w3a16-g128-asym").output
    assert "Nearest published rows" in text and max(map(len, text.splitlines())) <= 100


def test_models_and_hardware_commands() -> None:
    assert "bloom-176b" in run("models").output
    assert "query_key_value" in run("models", "bloom-7b1").output
    assert len(json.loads(run("models", "bloom", "--format", "json").output)["models"]) in (1, 6)
    assert "a100-80gb" in run("hardware").output
    assert json.loads(run("hardware", "--format", "json").output)["engines"]


def test_rules_command() -> None:
    assert "gptq/act-order" in run("rules").output


def test_rules_of_the_user(tmp_path: Path) -> None:
    pack = tmp_path / "bad.yaml"
    pack.write_text("pack: [")
    assert run(*BLOOM, "--rules", str(pack)).exception is not None


WRONG: list[tuple[list[str], str]] = [
    ([], "name one of --model and --family"),
    (["--model", "blom-7b1", "--mem", "10GB"], "did you mean 'bloom-7b1'"),
    (["--model", "bloom-7b1", "--mem", "80 gigs"], "not a size: '80 gigs'"),
    (["--model", "bloom-7b1", "--mem", "10GB", "--context", "-5"], "context out of range: -5"),
    (["--model", "bloom-7b1", "--mem", "10GB", "--context", "4096"], "at most 2048"),
    (["--model", "bloom-7b1", "--mem", "10GB", "--context", "many"], "not a valid integer"),
    (["--model", "bloom-7b1", "--hardware", "a100-81gb"], "did you mean 'a100-80gb'"),
    (["--model", "bloom-7b1", "--mem", "10GB", "--engine", "vlm"], "did you mean 'vllm'"),
    (["--model", "bloom-7b1", "--mem", "10GB", "--objective", "speed"], "unknown objective"),
    (["--model", "bloom-7b1", "--mem", "10GB", "--max-loss", "lots"], "not a loss: 'lots'"),
    (["--model", "bloom-7b1", "--mem", "10GB", "--rules", "/nowhere.yaml"], "nowhere"),
    (["--model", "bloom-7b1", "--mem", "10GB", "--plot", "x.gif"], "not a picture format"),
    (["--model", "bloom-7b1", "--mem", "10GB", "-o", "/nowhere/r.yaml"], "cannot write the recipe"),
    (["--family", "blooom", "--mem", "10GB"], "did you mean 'bloom'"),
    (["--or-smaller", "--mem", "10GB"], "name one of"),
    (["--nonsense"], "No such option"),
    (["memory", "--model", "bloom-7b1", "--scheme", "w4b16"], "unknown scheme"),
    (["memory", "--model", "bloom-7b1", "--scheme", "w4a16", "--output-format", "zip"], "unknown output format"),
    (["memory", "--model", "bloom-7b1", "--kv-bits", "3"], "kv bits"),
    (["predict", "--model", "bloom-7b1", "--scheme", "w99"], "unknown scheme"),
    (["memory", "--model", "./nowhere"], "no such model folder"),
    (["nonsense"], "No such command"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "words"), WRONG, ids=[" ".join(args) or "nothing" for args, _ in WRONG])
def test_bad_input_is_one_clear_line(args: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = guarded(args, capsys)
    assert code == 2 and out == ""
    assert words in err and err.count("\n") == 1 and "Traceback" not in err


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(Exception, match="unknown model"):
        command._guarded(["--model", "blom", "--mem", "1GB", "--debug"])


WORDS = st.sampled_from(
    ["--model", "--mem", "--context", "--batch", "--gpus", "--engine", "--hardware", "--family", "--max-loss",
     "--objective", "--format", "--maximize", "--or-smaller", "--explain", "memory", "predict", "models", "hardware",
     "--scheme", "--offload", "--metric", "accuracy", "vllm@0.25", "llama.cpp", "llama-2,llama-3", "--what-if",
     "bloom-7b1", "llama-3-8b", "demo", "10GB", "2048", "1%", "w4a16-g128", "vllm", "t4", "json",
     "context"]
)  # fmt: skip
TEXTS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="/\\"), max_size=8)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(args=st.lists(WORDS | TEXTS, max_size=8))
def test_no_arguments_ever_give_a_traceback(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if not {"-o", "--output", "--plot"} & {word.split("=")[0] for word in args}:
        code, _, err = guarded(args, capsys)
        assert code in (0, 1, 2)
        assert "internal error" not in err and "Traceback" not in err


HEAVY = ("torch", "transformers", "numpy", "rich", "jinja2", "scipy", "matplotlib", "huggingface_hub")
QUESTIONS = [
    BLOOM, ["--help"], ["--family", "bloom", "--mem", "16GB"],
    ["memory", "--model", "bloom-7b1", "--scheme", "w4a16"],
    [*BLOOM, "--format", "json"], ["predict", "--model", "bloom-7b1", "--scheme", "w4a16-g128"],
]  # fmt: skip


@pytest.mark.parametrize("args", QUESTIONS, ids=[" ".join(args) for args in QUESTIONS])
def test_nothing_heavy_is_imported(args: list[str]) -> None:
    code = (
        "import sys, contextlib, io\nfrom quantrecipe.advisor.cli import _guarded\n"
        f"with contextlib.redirect_stdout(io.StringIO()):\n    _guarded({args!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_pydantic_is_not_imported_either() -> None:
    code = (
        "import sys, contextlib, io\nfrom quantrecipe.advisor.cli import _guarded\n"
        f"with contextlib.redirect_stdout(io.StringIO()):\n    _guarded({BLOOM!r})\nprint('pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False"


def test_hardware_that_runs_no_integers_gets_none() -> None:
    result = run("--model", "llama-3.1-8b", "--hardware", "mi300x", "--engine", "vllm")
    assert result.exit_code == 0 and "fp8 by rtn" in result.output and "made by  the native backend" in result.output


def test_a_hub_id_without_a_hub(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    from quantrecipe.catalog import hub

    monkeypatch.setattr(hub, "_reachable", lambda endpoint: False)
    code, _, err = guarded(["--model", "no-such-owner/no-such-model", "--mem", "1GB"], capsys)
    assert code == 2 and "the hub is out of reach" in err and err.count("\n") == 1


def test_examples_of_the_help_run() -> None:
    text = run("--help").output
    assert "qadvise --model bloom-176b --mem 80GB" in text
    assert yaml.safe_load(run("--model", "bloom-176b", "--mem", "80GB", "--format", "yaml").output)["version"] == 1


PACK = """pack: mine
title: My pack
about: For a test.
rules:
"""
RULE = """  - id: mine/{name}
    title: {name} is so
    when: [candidate.weight_bits == {bits}]
    effect: {effect}
    {more}
    finding: some finding
    advice: some advice
    source: a test
    stands_on: [text]
    limits: none known
"""


def test_conflicts_of_rules_are_reported(tmp_path: Path) -> None:
    """Preferences that pull the recommendation apart, and a requirement that nothing meets."""
    pack = tmp_path / "mine.yaml"
    rules = [("for", 8, "prefer", "weight: 1"), ("against", 8, "prefer", "weight: -1"),
             ("only", 2, "require", "require: [candidate.weight_bits == 6]")]  # fmt: skip
    texts = (RULE.format(name=name, bits=bits, effect=effect, more=more) for name, bits, effect, more in rules)
    pack.write_text(PACK + "".join(texts), encoding="utf-8")
    result = run(*BLOOM, "--rules", str(pack))
    flat = " ".join(result.output.split())
    assert "rules disagree: against is so (mine/against), against" in flat, result.output or result.exception
    assert "rules conflict: mine/only can be met by none of the candidates" in flat
    answer = json.loads(run(*BLOOM, "--rules", str(pack), "--format", "json").output)
    assert any("mine/for and mine/against" in line for line in answer["conflicts"])
