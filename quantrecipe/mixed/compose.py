"""A mix as an ordinary recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from quantrecipe.advisor.backend import backend_for
from quantrecipe.advisor.candidate import Candidate
from quantrecipe.advisor.candidates import Way
from quantrecipe.advisor.draft import OUTPUT, cache_args, cache_scales, evaluation_args, target_args
from quantrecipe.advisor.facts import candidate_facts
from quantrecipe.advisor.launch import launch_line
from quantrecipe.mixed.because import more_lines, proof_line, usual_option
from quantrecipe.mixed.correlate import Correlation
from quantrecipe.mixed.groups import groups_of
from quantrecipe.mixed.question import Question
from quantrecipe.mixed.solve import Losses, Mix
from quantrecipe.modeling.plan import make_plan
from quantrecipe.recipe import Calibration, Recipe
from quantrecipe.runner.engine_check import check_engine

RULE = "mixed/measured"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a mix was chosen by. source: of the figures, in words; verified: what was measured of the mix itself.

    correlations: of cheap measures with the dearest.
    """

    losses: Losses
    calibration: Calibration
    source: str
    verified: tuple[str, ...] = ()
    correlations: tuple[Correlation, ...] = ()


def recipe_of(question: Question, mix: Mix, evidence: Evidence) -> dict[str, Any]:
    """The recipe as data, every part filled in.

    Raises QuantRecipeError where the engine could not load what it makes.
    """
    one = _candidate(question, mix)
    groups, ignore = groups_of(question.skeleton.linears(), question.units, mix.chosen)
    quantization: dict[str, Any] = {
        "backend": "native", "format": question.form, "config_groups": groups, "ignore": ignore,
    }  # fmt: skip
    if mix.kv_bits < 16 and cache_scales(one, question.asked.program):
        quantization["kv_cache_scheme"] = cache_args(one)
    file_bytes = question.ledger.sizes.file_bytes(mix.chosen, "kv_cache_scheme" in quantization)
    reasons = [*evidence.verified, *more_lines(question, mix, evidence.losses), proof_line(question, mix)]
    recipe = {
        "version": 1,
        "model": {"id": question.model},
        "target": _target(question),
        "quantization": quantization,
        "calibration": evidence.calibration.model_dump(mode="json", exclude={"experts"}),
        "evaluation": evaluation_args(question.spec),
        "gates": {"max_size": _gate(question, file_bytes)},
        "output": {"path": OUTPUT, "report": f"{OUTPUT}/report.md"},
        "expected": {
            "file_bytes": file_bytes,
            "resident_bytes": one.memory.weights_bytes,
            "peak_memory": one.memory.total_bytes,
        },
        "launch": launch_line(one, question.asked, OUTPUT),
        "because": [{"rule": RULE, "finding": text, "source": evidence.source} for text in reasons],
    }
    _check(question, recipe)
    return recipe


def _candidate(question: Question, mix: Mix) -> Candidate:
    """The mix in the advisor's words, by the scheme of the most weights."""
    option = usual_option(question, mix.chosen)
    memory = question.ledger.memory(question.units, mix.chosen, mix.kv_bits)
    way = Way(option.facts, option.method, question.form)
    kind = mix.cache.type if mix.cache is not None else "none"
    judgement = question.allowed.judge.judge(candidate_facts(way, mix.kv_bits, kind, memory.bits_per_weight))
    verdict = memory.verdict(question.asked.memory)
    return Candidate(question.spec, way, mix.kv_bits, kind, memory, judgement, backend_for(way), verdict)


def _target(question: Question) -> dict[str, Any]:
    """Without a memory where the budget is of files."""
    found = target_args(question.asked)
    if question.budget.files:
        found.pop("memory", None)
    return found


def _gate(question: Question, file_bytes: int) -> str:
    """The budget itself where it is of files, else the file's size with 1 % to spare."""
    return question.budget.written if question.budget.files else f"{math.ceil(file_bytes * 1.01 / 1e6)}MB"


def _check(question: Question, recipe: dict[str, Any]) -> None:
    """The recipe means each layer as it was chosen, and the engine loads it."""
    parsed = Recipe.model_validate(recipe)
    plan = make_plan(parsed, question.skeleton.linears())
    check_engine(parsed, plan, question.form)
