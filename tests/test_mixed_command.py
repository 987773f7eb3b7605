"""``qadvise --measure`` on the demo model, with losses from a stub: what it answers, writes and refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from quantrecipe.advisor import cli as advisor_cli
from quantrecipe.mixed import answer
from quantrecipe.mixed.correlate import correlation_line, correlations
from quantrecipe.mixed.question import Question, pose
from quantrecipe.mixed.solve import bytes_of, frontier_of, problem_of, solve
from quantrecipe.mixed.table import Cell, LossTable
from quantrecipe.modeling.plan import make_plan
from quantrecipe.recipe_file import load_recipe

Run = Callable[..., tuple[int, str]]


def _losses(units: Any, options: Any) -> LossTable:
    """Loss falls fourfold a bit; the first block bears four times as much."""
    table = LossTable({})
    for unit in units:
        weight = 4.0 if unit.block == 0 else 1.0
        for one in options[unit.name]:
            bits = (
                one.facts.bits + (8.0 / one.facts.group if one.facts.group else 0) + 0.1 * (not one.facts.symmetric)
            )
            value = 0.0 if one.keeps else weight * unit.weights * 4.0**-bits * 1e-6
            table.put("loss", Cell(unit.name, str(one)), value)
    return table


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs qadvise; exit code and output."""
    monkeypatch.setenv("QUANTRECIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        answer, "measure_losses", lambda folder, units, options, *rest, **more: _losses(units, options)
    )

    def go(*args: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as leave:
            advisor_cli.main(["--measure", "--effort", "low", *args])
        said = capsys.readouterr()
        return int(leave.value.code or 0), said.out + said.err

    return go


def _question(size: str | None = "3.6MB", memory: str | None = None, **more: Any) -> Question:
    return pose("demo", memory, size, **more)


def _solved(question: Question) -> Any:
    return solve(question, _losses(question.units, question.options).losses())


def test_the_recipe_is_an_ordinary_one_of_the_promised_bytes(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    code, said = run("--model", "demo", "--size", "3.6MB", "-o", str(path))
    assert code == 0 and "qrun" in said and "3.6MB of weight files" in said
    recipe = load_recipe(path)
    question = _question()
    plan = make_plan(recipe, question.skeleton.linears())
    mix = _solved(question)
    assert {one.name: one.group.scheme.name for one in plan.modules if one.group} == {
        layer: mix.chosen[unit.name].scheme for unit in question.units for layer in unit.layers
    }
    assert recipe.expected is not None and recipe.gates.max_size == "3.6MB"
    assert recipe.expected.file_bytes == bytes_of(question, mix)
    assert 0.995 * 3.6e6 <= bytes_of(question, mix) <= 3.6e6
    assert any("would lose" in one.finding for one in recipe.because)
    assert any("gap" in one.finding for one in recipe.because)


def test_the_first_block_which_bears_more_gets_more(run: Run) -> None:
    _, said = run("--model", "demo", "--size", "3.6MB", "--format", "json")
    data = json.loads(said)
    bits = {unit["unit"]: int(unit["scheme"][1]) for unit in data["mix"]["units"]}
    first = [value for name, value in bits.items() if ".0." in name]
    last = [value for name, value in bits.items() if ".3." in name]
    assert sum(first) > sum(last)
    assert data["mix"]["gap"] < 1e-6 and data["mix"]["loss_saved_per_mb"] > 0
    assert data["budget"] == {"bytes": 3_600_000, "of": "files"}


def test_the_frontier_is_exact_at_each_of_its_points(run: Run) -> None:
    _, said = run("--model", "demo", "--size", "3.6MB", "--frontier", "--format", "json")
    points = json.loads(said)["frontier"]
    assert 20 <= len(points) <= 40
    assert [one["bytes"] for one in points] == sorted(one["bytes"] for one in points)
    assert all(a["loss"] > b["loss"] for a, b in pairwise(points))
    question = _question(size=f"{points[10]['bytes'] + 20_000}B")
    again = _solved(question)
    assert again.choice.loss <= points[10]["loss"]


def test_pins_hold_and_what_they_fuse_with_goes_with_them(run: Run) -> None:
    _, said = run(
        "--model", "demo", "--size", "3.9MB", "--pin", "re:.*down_proj=8",
        "--pin", "model.layers.1.self_attn.q_proj=16",
        "--pin", "model.layers.2.mlp.up_proj=w4a16-g64", "--format", "json",
    )  # fmt: skip
    chosen = {unit["unit"]: unit["scheme"] for unit in json.loads(said)["mix"]["units"]}
    assert all(scheme == "w8a16" for name, scheme in chosen.items() if name.endswith("down_proj"))
    assert chosen["model.layers.1.self_attn.q_proj+k_proj+v_proj"] == "w16a16"
    assert chosen["model.layers.2.mlp.gate_proj+up_proj"] == "w4a16-g64"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--model", "demo", "--size", "1MB"], "the smallest takes 29"),
        (["--model", "demo"], "name one of --mem"),
        (["--model", "demo", "--mem", "1GB", "--size", "4MB"], "name one of --mem"),
        (["--size", "4MB"], "--measure needs --model"),
        (["--model", "llama-3.1-8b", "--size", "4GB"], "not on this machine: 'llama-3.1-8b'.*hf download"),
        (["--model", "no/such", "--size", "4GB"], "not on this machine"),
        (["--model", "demo", "--size", "4MB", "--pin", "re:.*dwn_proj=8"], "matches no layer.*down_proj"),
        (["--model", "demo", "--size", "4MB", "--pin", "down_proj"], "not a pin"),
        (["--model", "demo", "--size", "4MB", "--pin", "re:.*down_proj=7"], "no such bits"),
        (["--model", "demo", "--size", "4MB", "--pin", "re:.*down_proj=w4a8"], "integer weights"),
        (["--model", "demo", "--size", "4MB", "--pin", "re:.*=4", "--pin", "re:.*=8"], "leaves no scheme"),
        (["--model", "demo", "--size", "4MB", "--pin", "re:(=4"], "not a regular expression"),
        (["--model", "demo", "--size", "4MB", "--pin", "re:.*=w3a16-g100"], "no scheme is left"),
        (["--model", "demo", "--size", "4MB", "--schemes", "w9a16"], "unknown scheme"),
        (["--model", "demo", "--size", "4MB", "--max-loss", "1%"], "--max-loss does not go with"),
        (["--model", "demo", "--mem", "1GB", "--engine", "transformers"], "expands compressed-tensors.*--size"),
        (["--model", "demo", "--size", "4MB", "--engine", "llama.cpp"], "no scheme is left|no mix fits"),
        (["--model", "demo", "--size", "4MB", "--calibration", "builtin:0x64"], "too little calibration"),
        (["--model", "demo", "--size", "4MB", "--calibration", "nowhere.txt"], "nowhere.txt"),
        (["--model", "demo", "--size", "four"], "not a size"),
    ],
)
def test_what_cannot_be_answered_is_one_line(run: Run, args: list[str], said: str) -> None:
    code, output = run(*args)
    assert code == 2 and re.search(said, output), output
    assert "Traceback" not in output and output.count("\n") == 1


def test_options_of_a_measurement_need_it() -> None:
    result = CliRunner().invoke(advisor_cli.cli, ["--model", "demo", "--mem", "1GB", "--pin", "x=8"])
    assert "--pin goes with --measure" in str(result.exception)


def test_memory_counts_what_serving_takes_and_the_cache_joins_in() -> None:
    roomy = _question(size=None, memory="1GB", context=512, batch=8)
    losses = _losses(roomy.units, roomy.options).losses()
    problem = problem_of(roomy, losses)
    assert len(problem.sizes) == len(roomy.units) + 1
    limit = 10**9 - roomy.room + (problem.least + problem.most) // 2
    question = _question(size=None, memory=f"{limit}B", context=512, batch=8)
    mix = solve(question, losses)
    memory = question.ledger.memory(question.units, mix.chosen, mix.kv_bits)
    assert 0 <= memory.spare(limit) < 0.005 * limit and memory.verdict(limit) == "edge"
    assert bytes_of(question, mix) <= limit
    assert {one.kv_bits for one in frontier_of(question, losses, 6)} == {8, 16}


def test_more_than_enough_keeps_the_model_as_it_is(run: Run, tmp_path: Path) -> None:
    code, said = run("--model", "demo", "--size", "1GB", "-o", str(tmp_path / "r.yaml"))
    assert code == 0 and "unquantized" in said and not (tmp_path / "r.yaml").exists()


def test_only_the_listed_schemes_are_tried() -> None:
    question = _question(schemes="w3a16-g64,w4a16-g64")
    assert {one.scheme for options in question.options.values() for one in options} == {
        "w16a16", "w3a16-g64", "w4a16-g64",
    }  # fmt: skip


def test_cheap_measures_are_ranked_against_the_dearest() -> None:
    table = LossTable({})
    for index in range(20):
        cell = Cell(f"layer {index}", "w4a16:gptq")
        table.put("kl", cell, 1.0 + index)
        table.put("hessian", cell, (1.0 + index) ** 3)
        table.put("weight", cell, 30.0 - index)
        table.put("diagonal", cell, 1.0)
    found = correlations(table)
    assert [(one.measure, one.dearest, round(one.rank, 9), one.cells) for one in found] == [
        ("weight", "kl", -1.0, 20), ("hessian", "kl", 1.0, 20),
    ]  # fmt: skip
    assert "KL of the whole model over 20" in correlation_line(found)
    assert correlations(LossTable({})) == () and correlation_line(()) == ""
