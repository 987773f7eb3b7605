"""Which schemes backend, format, engine and rules allow a layer of a mix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quantrecipe.advisor import engine as engines
from quantrecipe.advisor.backend import can
from quantrecipe.advisor.candidates import Way
from quantrecipe.advisor.constraints import Constraints
from quantrecipe.advisor.facts import budget_facts, candidate_facts, engine_facts, hardware_facts, model_facts
from quantrecipe.mixed.options import Fault, Option, options_of
from quantrecipe.mixed.units import Unit
from quantrecipe.model import ModelSpec
from quantrecipe.plugins.contract import Capabilities
from quantrecipe.rules.engine import Judge, RuleSet
from quantrecipe.storage import format_fault

#: What vLLM's weight-only method for experts takes (runner/engine_check.py).
_VLLM_EXPERT_BITS = (4, 8)
#: Bits at which every engine that loads mixes takes zero points: what is left where no engine is named.
_ZERO_POINTS = (4, 8)


@dataclass(frozen=True, slots=True)
class Allowed:
    """Says why not. able: of the native backend. A layer that stays as it is needs no leave."""

    able: Capabilities
    asked: Constraints
    judge: Judge
    form: str

    @classmethod
    def of(cls, spec: ModelSpec, asked: Constraints, rules: RuleSet, able: Capabilities, form: str) -> Allowed:
        """For one model and question."""
        judge = rules.for_query(model_facts(spec), budget_facts(asked), hardware_facts(asked), engine_facts(asked))
        return cls(able, asked, judge, form)

    def options(self, unit: Unit, tried: Sequence[Option]) -> tuple[Option, ...]:
        """What the unit may take. Raises QuantRecipeError where nothing is left."""
        experts: tuple[Fault, ...] = (self._expert_fault,) if unit.parts[0].is_expert else ()
        return options_of(unit, tried, (self.fault, *experts))

    def fault(self, option: Option) -> str | None:
        """Why no layer may take it, the most fundamental reason first; None where layers may."""
        return None if option.keeps else next(self._faults(option), None)

    def _faults(self, option: Option) -> Iterator[str]:
        way = Way(option.facts, option.method, self.form)
        if self.form != "quantrecipe" and (held := format_fault(option.facts, self.form)):
            yield held
        if not can(self.able, way):
            yield f"the native backend does not make {option.scheme} by {option.method}"
        if self.asked.engine is None:
            if not option.facts.symmetric and option.facts.bits not in _ZERO_POINTS:
                yield "vLLM takes zero points at 4 and 8 bits only; --engine transformers takes others"
        else:
            device = self.asked.device
            architecture = device.architecture if device else None
            unable = engines.fault(self.asked.engine, way, 16)
            unable = unable or engines.hardware_fault(self.asked.engine, way, 16, architecture)
            if unable:
                yield unable
        because = self.judge.judge(candidate_facts(way, 16, "none", float(option.facts.bits))).rejected_because
        if because:
            yield because

    def _expert_fault(self, option: Option) -> str | None:
        """What readers of experts refuse beyond that: zero points; in vLLM other than 4 and 8 bits."""
        engine = self.asked.engine
        if option.keeps or self.form != "compressed-tensors":
            return None
        if not option.facts.symmetric:
            return "vLLM and transformers take symmetric experts only"
        if engine is not None and engine.name == "vllm" and option.facts.bits not in _VLLM_EXPERT_BITS:
            return "vLLM takes experts of 4 or 8 bits"
        return None
