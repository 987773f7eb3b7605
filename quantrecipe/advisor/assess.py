"""Weighs every candidate of one model: memory, rules, engine, backend, predicted loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from quantrecipe.advisor import engine as engines
from quantrecipe.advisor.backend import NONE_ABLE, backend_for
from quantrecipe.advisor.candidate import Candidate, Objection
from quantrecipe.advisor.candidates import KV_BITS, Way, ways
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.advisor.evidence import predicted
from quantrecipe.advisor.facts import budget_facts, candidate_facts, engine_facts, hardware_facts, model_facts
from quantrecipe.advisor.tables import Engine
from quantrecipe.memory import WeightBytes, combine, weight_bytes
from quantrecipe.model import ModelSpec
from quantrecipe.rules.engine import Judge, RuleSet
from quantrecipe.scheme_facts import scheme_facts
from quantrecipe.units import format_bytes

LIMIT_CERTAINTY = 0.8  # --max-loss means: the loss stays under it with this probability


class Place(NamedTuple):
    """Where a 16-bit model stands among those it is compared with: ``Candidate.offset`` and ``Candidate.rate``."""

    offset: float = 0.0
    rate: float = 1.0


class _Model(NamedTuple):
    """A model with the rules that can fire for it, and its place among others."""

    spec: ModelSpec
    judge: Judge
    place: Place


def assess(
    model: ModelSpec, asked: Constraints, rules: RuleSet, place: Place | None = None, able_only: bool = False
) -> list[Candidate]:
    """Every candidate of a model, each with the reasons that speak against it.

    able_only leaves out what no backend makes or the engine cannot load, and predicts no loss for what does
    not fit: enough where many models are compared.
    """
    judge = rules.for_query(model_facts(model), budget_facts(asked), hardware_facts(asked), engine_facts(asked))
    of = _Model(model, judge, place or Place())
    stored: dict[tuple[str, str, int, int], WeightBytes] = {}
    found = []
    for way in all_ways(model, asked):
        if able_only and (backend_for(way) is None or engines.fault(asked.program, way, 16)):
            continue
        key = (way.scheme.name, way.format, way.embedding_bits, way.rank)
        if key not in stored:
            stored[key] = loaded(model, way, asked)
        found += [_one(of, way, kv_bits, stored[key], asked) for kv_bits in _cache_bits(asked)]
    for one in found:
        if not (able_only and one.rejected):
            _predict(one, asked)
    return found


def all_ways(model: ModelSpec, asked: Constraints) -> Iterator[Way]:
    """Every way, and those with an 8-bit embedding where the engine holds one and a backend makes it."""
    program = asked.program
    for way in ways(model, program.formats, lambda way: _held(program, way)):
        yield way
        for bits in program.embeddings.get(way.format, ()):
            small = way._replace(embedding_bits=bits)
            if way.scheme.act_bits == 16 and (program.tied or not model.tied) and backend_for(small):
                yield small


def _held(program: Engine, way: Way) -> bool:
    """Whether the engine loads a way and keeps it packed."""
    return way.format not in program.decompresses and engines.fault(program, way, 16) is None


def _cache_bits(asked: Constraints) -> list[int]:
    return sorted({*KV_BITS, *asked.program.cache_bits}, reverse=True)


def loaded(model: ModelSpec, way: Way, asked: Constraints) -> WeightBytes:
    """Bytes of a way's weights as the engine holds them: in 16 bits where it expands the format."""
    stored = weight_bytes(model, way.scheme, way.format, way.embedding_bits, way.rank)
    if way.format not in asked.program.decompresses:
        return stored
    return replace(stored, groups=weight_bytes(model, scheme_facts("w16a16"), way.format).groups)


def _one(of: _Model, way: Way, kv_bits: int, stored: WeightBytes, asked: Constraints) -> Candidate:
    memory = combine(of.spec, stored, way.format, asked.serving(kv_bits))
    kind = engines.kv_type(asked.program, kv_bits)
    judgement = of.judge.judge(candidate_facts(way, kv_bits, kind, memory.bits_per_weight))
    verdict = memory.verdict(asked.room(memory.weights_bytes))
    one = Candidate(of.spec, way, kv_bits, kind, memory, judgement, backend_for(way), verdict)
    one.offset, one.rate = of.place
    one.rejected = _objections(one, asked)
    return one


def _predict(one: Candidate, asked: Constraints) -> None:
    """The loss to expect, and the limit that it may break."""
    way = one.way
    one.predicted(predicted(one.model, way.scheme, way.method, one.kv_bits, way.act_order or None))
    over = _over_limit(one, asked)
    if over:
        one.rejected.append(over)
    if way.compensation and one.prediction is not None and not one.prediction.support:
        one.rejected.append(Objection("evidence", f"no published result of {way.compensation} near this model"))


def _objections(one: Candidate, asked: Constraints) -> list[Objection]:
    """What speaks against a candidate, the most fundamental first."""
    said = []
    if one.judgement.rejected_because:
        said.append(Objection("rule", one.judgement.rejected_because))
    architecture = asked.device.architecture if asked.device else None
    unable = engines.fault(asked.program, one.way, one.kv_bits) or engines.hardware_fault(
        asked.program, one.way, one.kv_bits, architecture
    )
    if unable:
        assumed = "" if asked.engine else " (assumed: no --engine named)"
        said.append(Objection("engine", unable + assumed))
    short = _too_close(one, asked)
    if short:
        said.append(Objection("memory", short))
    if one.backend is None:
        said.append(Objection("backend", NONE_ABLE))
    return said


def _too_close(one: Candidate, asked: Constraints) -> str | None:
    """Why the budget does not hold a candidate: more than all of it, or hardly less."""
    memory = one.memory
    need = format_bytes(memory.total_bytes)
    room = asked.room(memory.weights_bytes)
    if memory.total_bytes > room:
        return f"needs {need}"
    if memory.spare(room) < 0:
        return f"needs {need}, and may take {format_bytes(memory.uncertainty_bytes)} more: too close"
    return None


def _over_limit(one: Candidate, asked: Constraints) -> Objection | None:
    """The loss limit that a candidate may break; the one that was not asked for holds for the likely loss only."""
    limit = asked.loss_limit
    if limit is None or one.prediction is None:
        return None
    if asked.max_loss is None:
        likely = one.prediction.relative_increase
        over = f"its loss is likely {likely:.1%}, over the usual limit of {limit:.1%} (--max-loss)"
        return Objection("limit", over) if likely > limit else None
    worst = one.prediction.quantile(LIMIT_CERTAINTY)
    if worst <= limit:
        return None
    return Objection("limit", f"its loss may reach {worst:.1%}, over the limit of {limit:.1%}")
