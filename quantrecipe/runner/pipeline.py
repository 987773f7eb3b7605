"""A recipe carried out: preflight, quantize, finish, verify, evaluate, gates, report; then put in its place."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrecipe.errors import BackendError, OutputError
from quantrecipe.plugins.contract import Checkpoint, Job, Progress
from quantrecipe.recipe import Recipe
from quantrecipe.recipe_file import load_recipe
from quantrecipe.runner import gates, measure, results, verify
from quantrecipe.runner.finish import finish
from quantrecipe.runner.locate import find
from quantrecipe.runner.meter import Meter
from quantrecipe.runner.preflight import Prepared, preflight
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.report.write import write_report
from quantrecipe.runner.result import Result
from quantrecipe.runner.staging import Staging, staging


@dataclass(slots=True)
class Options:
    """How a run is carried out. command: what a user types to repeat it."""

    overwrite: bool = False
    device: str | None = None
    trust_remote_code: bool = False
    command: str | None = None


@dataclass(slots=True)
class Run:
    """One run under way: what its stages share."""

    prepared: Prepared
    options: Options
    progress: Progress
    meter: Meter
    staging: Staging


def run(  # noqa: PLR0913 - the public surface; all but the recipe by keyword
    recipe: Recipe | str | Path,
    *,
    model: str | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
    trust_remote_code: bool = False,
    command: str | None = None,
) -> Result:
    """Carry a recipe out. Raises QuantRecipeError; then nothing is left behind.

    model, output: instead of the recipe's. overwrite: replace a checkpoint that the output holds.
    device: ``cpu`` or ``cuda``; None = cuda where there is one.
    """
    asked = load_recipe(recipe) if isinstance(recipe, str | Path) else recipe
    asked = override(asked, model, output)
    options = Options(overwrite, device, trust_remote_code, command)
    shown, meter = progress or Quiet(), Meter()
    shown.start("preflight")
    with meter.stage("resolve"):
        model_path = find(asked.model.id, asked.model.revision)
        target = Path(asked.output.path)
    with staging(target, overwrite, keep=model_path) as stage:
        with meter.stage("preflight"):
            prepared = preflight(asked, model_path, target, device, trust_remote_code)
        return _carry_out(Run(prepared, options, shown, meter, stage))


def override(recipe: Recipe, model: str | None, output: str | Path | None) -> Recipe:
    """The recipe with another model or output; a report inside the old output moves with it."""
    changes: dict[str, Any] = {}
    if model is not None:
        changes["model"] = recipe.model.model_copy(update={"id": model, "revision": None})
    if output is not None:
        report = recipe.output.report
        inside = report is not None and Path(recipe.output.path) in Path(report).parents
        moved = str(Path(output) / Path(str(report)).relative_to(recipe.output.path)) if inside else report
        changes["output"] = recipe.output.model_copy(update={"path": str(output), "report": moved})
    return recipe.model_copy(update=changes)


def _carry_out(run: Run) -> Result:
    for note in run.prepared.notes:
        run.progress.note(note)
    checkpoint = _quantize(run)
    run.progress.start("finish")
    with run.meter.stage("finish"):
        finish(run.prepared, checkpoint)
    run.progress.start("verify")
    began = time.perf_counter()
    verified = verify.verify(run.prepared, checkpoint, run.options.trust_remote_code)
    run.meter.add("verify (fresh process)", time.perf_counter() - began, verified["peak_memory"])
    with run.meter.stage("evaluate"):
        measures = measure.measure(run.prepared, checkpoint, run.progress)
    size = measure.sizes(run.prepared, checkpoint)
    evidence = gates.Evidence(measures, size["file_bytes"], size["bits_per_weight"], run.meter.peak)
    judged = gates.judge(run.prepared.recipe.gates, evidence)
    found = results.collect(run, checkpoint, results.Findings(verified, measures, size, judged))
    run.progress.start("report")
    report = write_report(found, run.staging, run.prepared.recipe.output)
    run.staging.place()
    return Result(run.staging.output, report, measures, judged, gates.exit_code(judged), found)


def _quantize(run: Run) -> Checkpoint:
    prepared = run.prepared
    job = Job(
        recipe=prepared.recipe,
        model_path=prepared.model_path,
        output_path=run.staging.folder,
        plan=prepared.plan,
        calibration=None if prepared.calibration is None else prepared.calibration.tokens,
        witness=prepared.witness,
        format=prepared.format,
        device=prepared.device,
        progress=run.progress,
        trust_remote_code=run.options.trust_remote_code,
    )
    with run.meter.stage("quantize"):
        checkpoint = prepared.backend.quantize(job)
    missing = sorted(set(prepared.plan.by_name()) - {layer.name for layer in checkpoint.layers})
    if missing:
        raise BackendError("the backend left layers unquantized", value=missing[0], limit=f"{len(missing)} in all")
    if checkpoint.path != run.staging.folder:
        raise OutputError("the backend wrote elsewhere", value=str(checkpoint.path), limit=str(run.staging.folder))
    return checkpoint
