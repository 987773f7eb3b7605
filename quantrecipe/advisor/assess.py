"""Weighs every candidate of one model: memory, rules, engine, backend, predicted loss."""

from __future__ import annotations

from typing import NamedTuple

from quantrecipe.advisor import engine as engines
from quantrecipe.advisor.backend import NONE_INSTALLED, backend_for
from quantrecipe.advisor.candidate import Candidate, Objection
from quantrecipe.advisor.candidates import KV_BITS, Way, ways
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.advisor.evidence import predicted
from quantrecipe.advisor.facts import budget_facts, candidate_facts, engine_facts, hardware_facts, model_facts
from quantrecipe.memory import WeightBytes, combine, weight_bytes
from quantrecipe.model import ModelSpec
from quantrecipe.rules.engine import Judge, RuleSet
from quantrecipe.units import format_bytes

LIMIT_CERTAINTY = 0.8  # --max-loss means: the loss stays under it with this probability


class _Model(NamedTuple):
    """A model with the rules that can fire for it, and its place in its family (``Candidate.offset``)."""

    spec: ModelSpec
    judge: Judge
    offset: float


def assess(
    model: ModelSpec, asked: Constraints, rules: RuleSet, offset: float = 0.0, able_only: bool = False
) -> list[Candidate]:
    """Every candidate of a model, each with the reasons that speak against it.

    able_only leaves out what no backend makes or the engine cannot load, and predicts no loss for what does
    not fit: enough where many models are compared.
    """
    judge = rules.for_query(model_facts(model), budget_facts(asked), hardware_facts(asked), engine_facts(asked))
    of = _Model(model, judge, offset)
    stored: dict[tuple[str, str], WeightBytes] = {}
    found = []
    for way in ways(model, asked.program.formats):
        if able_only and (backend_for(way) is None or engines.fault(asked.program, way, 16)):
            continue
        key = (way.scheme.name, way.format)
        if key not in stored:
            stored[key] = weight_bytes(model, way.scheme, way.format)
        found += [_one(of, way, kv_bits, stored[key], asked) for kv_bits in KV_BITS]
    for one in found:
        if not (able_only and one.rejected):
            _predict(one, asked)
    return found


def _one(of: _Model, way: Way, kv_bits: int, stored: WeightBytes, asked: Constraints) -> Candidate:
    memory = combine(of.spec, stored, way.format, asked.serving(kv_bits))
    kind = engines.kv_type(asked.program, kv_bits)
    judgement = of.judge.judge(candidate_facts(way, kv_bits, kind, memory.bits_per_weight))
    backend, verdict = backend_for(way), memory.verdict(asked.memory)
    one = Candidate(of.spec, way, kv_bits, kind, memory, judgement, backend, verdict, offset=of.offset)
    one.rejected = _objections(one, asked)
    return one


def _predict(one: Candidate, asked: Constraints) -> None:
    """The loss to expect, and the limit that it may break."""
    way = one.way
    one.predicted(predicted(one.model, way.scheme, way.method, one.kv_bits, way.act_order or None))
    over = _over_limit(one, asked)
    if over:
        one.rejected.append(over)


def _objections(one: Candidate, asked: Constraints) -> list[Objection]:
    """What speaks against a candidate, the most fundamental first."""
    said = []
    if one.judgement.rejected_because:
        said.append(Objection("rule", one.judgement.rejected_because))
    architecture = asked.device.architecture if asked.device else None
    unable = engines.fault(asked.program, one.way, one.kv_bits) or engines.hardware_fault(
        asked.program, one.way, architecture
    )
    if unable:
        assumed = "" if asked.engine else " (assumed: no --engine named)"
        said.append(Objection("engine", unable + assumed))
    short = _too_close(one, asked)
    if short:
        said.append(Objection("memory", short))
    if one.backend is None:
        said.append(Objection("backend", NONE_INSTALLED))
    return said


def _too_close(one: Candidate, asked: Constraints) -> str | None:
    """Why the budget does not hold a candidate: more than all of it, or hardly less."""
    memory = one.memory
    need = format_bytes(memory.total_bytes)
    if memory.total_bytes > asked.memory:
        return f"needs {need}"
    if memory.spare(asked.memory) < 0:
        return f"needs {need}, and may take {format_bytes(memory.uncertainty_bytes)} more: too close"
    return None


def _over_limit(one: Candidate, asked: Constraints) -> Objection | None:
    """The loss limit that a candidate may break."""
    limit = asked.loss_limit
    if limit is None or one.prediction is None:
        return None
    worst = one.prediction.quantile(LIMIT_CERTAINTY)
    if worst <= limit:
        return None
    return Objection("limit", f"its loss may reach {worst:.1%}, over the limit of {limit:.1%}")
