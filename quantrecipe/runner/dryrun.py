"""``qrun --dry-run``: the plan of a recipe, from shapes alone; no weight is read and no network is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import Plan, PlannedModule, make_plan
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins import manager
from quantrecipe.plugins.contract import Backend
from quantrecipe.recipe import Recipe
from quantrecipe.runner.capability import choose_backend
from quantrecipe.runner.engine_check import check_engine, is_odd, layer_of
from quantrecipe.runner.locate import catalogue_spec, find_offline, linears
from quantrecipe.runner.needs import Needs, Sizes, check_disk, count_needs
from quantrecipe.runner.pipeline import override
from quantrecipe.runner.plan_notes import plan_notes
from quantrecipe.runner.preflight import choose_device, plan_needs
from quantrecipe.units import format_both, format_bytes


@dataclass(frozen=True, slots=True)
class Outline:
    """A plan and where its shapes come from."""

    plan: Plan
    needs: Needs
    source: str


def dry_run(recipe: Recipe, model: str | None, output: Path | None, device: str | None) -> Iterator[str]:
    """The plan, line by line. Raises QuantRecipeError where the recipe could not be carried out."""
    asked = override(recipe, model, output)
    where = choose_device(device)
    outline = _outline(asked, manager.backend(asked.quantization.backend), where)
    backend, form, notes = choose_backend(asked, is_odd(outline.plan), where)
    check_engine(asked, outline.plan, form)
    check_disk(outline.needs, Path(asked.output.path))
    yield f"model      {asked.model.id}: {outline.source}"
    yield from _layers(outline.plan)
    yield from _totals(outline)
    yield f"format     {form}, written to {asked.output.path}"
    yield f"backend    {_why(backend, asked, where)}"
    yield from _checks(asked)
    notes = (*notes, *plan_notes(asked, outline.plan, form))
    yield from (f"note       {note}" for note in notes)


def _outline(recipe: Recipe, backend: Backend, device: str) -> Outline:
    """From the model's folder where it is here, else from the catalogue."""
    path = find_offline(recipe.model.id, recipe.model.revision)
    if path is None:
        return _from_catalogue(recipe, backend)
    try:
        skeleton = Skeleton(ModelFolder.open(path))
    except ModelError:
        if path.name == recipe.model.id or Path(recipe.model.id).exists():
            raise
        return _from_catalogue(recipe, backend)
    plan = make_plan(recipe, skeleton.linears())
    return Outline(plan, plan_needs(recipe, plan, skeleton, backend, device), f"shapes from {path}")


def _from_catalogue(recipe: Recipe, backend: Backend) -> Outline:
    spec = catalogue_spec(recipe.model.id)
    plan = make_plan(recipe, linears(spec))
    calibration = recipe.calibration
    tokens = calibration.samples * min(calibration.sequence_length, spec.context) if plan.needs_calibration else 0
    sizes = Sizes(2, spec.hidden, tokens, backend.capabilities().streams)
    needs = count_needs(plan, 2 * spec.parameters, sizes)
    return Outline(
        plan, needs, "shapes from the catalogue; the model is not on this machine, no weights were looked at"
    )


def _layers(plan: Plan) -> Iterator[str]:
    """One line a kind of layer and scheme: how many, shape, bytes before and after."""
    kinds: dict[tuple[str, str, str], list[PlannedModule]] = {}
    for module in plan.modules:
        scheme = module.group.scheme.name if module.group else "as it is"
        method = module.group.method.name if module.group else f"ignored by {module.ignored_by!r}"
        if module.group is None and module.ignored_by is None:
            method = "not targeted"
        kinds.setdefault((layer_of(module.name), scheme, method), []).append(module)
    width = max(len(name) for name, _, _ in kinds)
    yield "layers"
    for (name, scheme, method), modules in kinds.items():
        info = modules[0].info
        shape = f"{info.rows} x {info.columns}"
        after = "" if modules[0].packed_bytes is None else format_bytes(sum(m.packed_bytes or 0 for m in modules))
        yield f"  {len(modules):4} x {name:{width}}  {shape:>15}  {scheme:12} {method:12} {after}".rstrip()


def _totals(outline: Outline) -> Iterator[str]:
    needs = outline.needs
    before, after = needs.weights_before, needs.weights_after
    yield f"bytes      {format_both(before)} before, {format_both(after)} after ({after / before:.2f} of it)"
    yield f"memory     about {format_both(needs.total_memory)} to quantize:"
    for name, size in needs.memory.items():
        yield f"             {format_bytes(size):>9}  {name}"


def _why(backend: Backend, recipe: Recipe, device: str) -> str:
    able, version = backend.capabilities(), backend.availability().version
    groups = recipe.quantization.config_groups.values()
    schemes = ", ".join(sorted({group.scheme.name for group in groups}))
    methods = ", ".join(sorted({group.method.name for group in groups}))
    streams = "one decoder block at a time" if able.streams else "with the whole model in memory"
    return f"{backend.name} {version or ''}: stores {schemes}, knows {methods}, runs on {device}, {streams}"


def _checks(recipe: Recipe) -> Iterator[str]:
    part = recipe.evaluation.perplexity
    yield f"measures   {'nothing' if part is None else f'perplexity, KL and agreement over {part.dataset}'}"
    gates = recipe.gates.model_dump(exclude_none=True)
    if gates:
        yield f"gates      {', '.join(f'{name} {value}' for name, value in gates.items())}"
