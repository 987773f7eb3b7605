"""What is asked of a mix, checked and laid over the model, before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrecipe.advisor.advise import for_context, ruleset
from quantrecipe.advisor.constraints import Constraints, constraints
from quantrecipe.catalog import lookup
from quantrecipe.catalog.resolve import resolve_model
from quantrecipe.errors import ModelError, QuantRecipeError
from quantrecipe.memory import PLAIN_BYTES
from quantrecipe.mixed.allowed import Allowed
from quantrecipe.mixed.budget import Budget, Ledger
from quantrecipe.mixed.cache import Cache, caches
from quantrecipe.mixed.options import KEEP, Option, candidates
from quantrecipe.mixed.pins import narrowed, parse_pin
from quantrecipe.mixed.sizes import Sizes
from quantrecipe.mixed.units import Unit, units_of
from quantrecipe.model import ModelSpec
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.manager import backend
from quantrecipe.runner.engine_check import FUSING_ENGINES
from quantrecipe.runner.locate import find_offline
from quantrecipe.scheme_facts import scheme_facts
from quantrecipe.units import parse_bytes


@dataclass(frozen=True, slots=True)
class Question:
    """model: as the user named it. options: of each unit, by its name. caches: the KV cache's, 16 bits first."""

    model: str
    path: Path
    skeleton: Skeleton
    spec: ModelSpec
    asked: Constraints
    allowed: Allowed
    budget: Budget
    ledger: Ledger
    units: tuple[Unit, ...]
    options: Mapping[str, tuple[Option, ...]]
    caches: tuple[Cache, ...]
    trust_remote_code: bool = False

    @property
    def name(self) -> str:
        """The model's, without the folders before it."""
        return Path(self.model).name or self.spec.id

    @property
    def form(self) -> str:
        """The format that it is written in."""
        return self.ledger.form

    @property
    def room(self) -> int:
        """Bytes for the units, and for the KV cache where it counts."""
        return self.ledger.room(self.budget)

    def unit_bytes(self) -> dict[tuple[str, str], int]:
        """Bytes of each unit under each of its options, as the budget counts them."""
        sizes, files = self.ledger.sizes, self.budget.files
        return {
            (unit.name, str(one)): sizes.option_bytes(unit, one, files)
            for unit in self.units
            for one in self.options[unit.name]
        }


def pose(  # noqa: PLR0913 - the question has that many parts
    model: str, memory: str | None, size: str | None, *, pins: Sequence[str] = (), schemes: str | None = None,
    rule_files: Sequence[str] = (), trust_remote_code: bool = False, **asked: Any,
) -> Question:  # fmt: skip
    """The question. memory: all of it in serving; size: of the weight files. Raises QuantRecipeError."""
    if (memory is None) == (size is None):
        raise QuantRecipeError(
            "name one of --mem (all memory in serving) and --size (the weight files)", remedy="--size 4GB"
        )
    budget = Budget(parse_bytes(memory or size or ""), memory is None, str(memory or size))
    given = constraints(budget.written, **asked)
    fixed, wanted = [parse_pin(pin) for pin in pins], _tried(schemes)
    path = weights_of(model)
    spec = resolve_model(str(path))
    given = for_context(spec, given)
    skeleton = Skeleton(ModelFolder.open(path), trust_remote_code)
    if "quantization_config" in skeleton.folder.config:
        raise ModelError("the model is quantized already", value=model, remedy="start from the original")
    units, form = _units(skeleton, given)
    _check_resident(given, budget, form)
    allowed = Allowed.of(spec, given, ruleset(rule_files), backend("native").capabilities(), form)
    tried = narrowed(units, wanted, fixed)
    options = {unit.name: allowed.options(unit, tried[unit.name]) for unit in units}
    cached = () if budget.files else caches(spec, given)
    serving = {one.bits: given.serving(one.bits) for one in cached} or {16: given.serving(16)}
    norms = spec.norm_parameters * PLAIN_BYTES
    ledger = Ledger(Sizes(skeleton, units, form), spec, form, serving, norms)
    return Question(
        model, path, skeleton, spec, given, allowed, budget, ledger, units, options, cached, trust_remote_code
    )  # fmt: skip


def weights_of(model: str) -> Path:
    """The folder of a model whose weights are on this machine. Raises ModelError where they are not."""
    path = find_offline(model)
    known = lookup.find(model)
    if path is None and known is not None and known.hub_id:
        path = find_offline(known.hub_id)
    if path is None:
        hub = known.hub_id if known is not None else model if "/" in model else None
        remedy = "name a folder with config.json and safetensors"
        raise ModelError(
            "--measure looks at a model's weights, which are not on this machine", value=model,
            remedy=f"hf download {hub}, or {remedy}" if hub else remedy,
        )  # fmt: skip
    return path if path.is_dir() else path.parent


def _units(skeleton: Skeleton, asked: Constraints) -> tuple[tuple[Unit, ...], str]:
    """The model's units, as the engine fuses them (all engines' habits where none is named), and the format."""
    engine = asked.engine.name if asked.engine else None
    linears = skeleton.linears()
    units = units_of(linears, engine is None or engine in FUSING_ENGINES, engine == "transformers")
    if not units:
        raise ModelError("no layers to choose schemes for", value=str(skeleton.folder.path))
    plain = all(part.is_plain for unit in units for part in unit.parts)
    return units, "compressed-tensors" if plain else "quantrecipe"


def _check_resident(asked: Constraints, budget: Budget, form: str) -> None:
    """An engine that expands the weights holds 16 bits of each, whatever their scheme."""
    if not budget.files and asked.engine is not None and form in asked.engine.decompresses:
        raise QuantRecipeError(
            f"{asked.engine.name} expands {form} weights to 16 bits in memory", value=f"--mem {budget.written}",
            limit="no mix changes what it needs", remedy="name the bytes of the files instead: --size",
        )  # fmt: skip


def _tried(schemes: str | None) -> tuple[Option, ...]:
    """Every candidate, or those that the user listed; layers may always stay as they are."""
    if schemes is None:
        return candidates()
    names = dict.fromkeys(scheme_facts(name).name for name in schemes.split(","))
    return (KEEP, *(Option(name, "gptq") for name in names if name != KEEP.scheme))
