"""A recipe carried out: preflight, quantize, finish, verify, evaluate, gates, report; then put in its place."""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrecipe.errors import BackendError, OutputError
from quantrecipe.modeling.identity import identity
from quantrecipe.plugins.contract import Checkpoint, Job, Progress
from quantrecipe.recipe import Recipe
from quantrecipe.recipe_file import load_recipe
from quantrecipe.runner import measure, results, verify
from quantrecipe.runner.appraise import Appraisal, Order, appraise, with_peak
from quantrecipe.runner.baseline import StoredBaseline
from quantrecipe.runner.finish import finish
from quantrecipe.runner.finished import ended, keep_checkpoint, recall_checkpoint
from quantrecipe.runner.gates import Evidence
from quantrecipe.runner.judge import Unsure, exit_code
from quantrecipe.runner.kept_scores import KeptScores
from quantrecipe.runner.ledger import Ledger
from quantrecipe.runner.locate import find
from quantrecipe.runner.meter import Meter
from quantrecipe.runner.needs import Spill
from quantrecipe.runner.pickles import converted_folder, without_pickles
from quantrecipe.runner.preflight import Prepared, preflight
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.recipe_source import recipe_source
from quantrecipe.runner.report.write import write_report
from quantrecipe.runner.result import Result
from quantrecipe.runner.staging import Staging, remove_scratch, staging

#: The stage of a backend that works in a process of its own: from its start to the saved checkpoint.
OWN_PROCESS = "quantize (its own process)"


@dataclass(slots=True)
class Options:
    """How a run is carried out. command: what a user types to repeat it. baseline: the accepted losses, if any.

    unsure: what becomes of a gate whose interval holds the limit: measure more windows, or call it fail or pass.
    """

    overwrite: bool = False
    device: str | None = None
    trust_remote_code: bool = False
    command: str | None = None
    unsure: Unsure = "extend"
    baseline: StoredBaseline | None = None
    spill: Spill = "auto"
    recipe_file: dict[str, Any] | None = None


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
    allow_pickle: bool = False,
    command: str | None = None,
    unsure: Unsure = "extend",
    baseline: str | Path | None = None,
    spill: Spill = "auto",
    recipe_file: str | Path | None = None,
) -> Result:
    """Carry a recipe out, or go on where a run that was stopped left off. Raises QuantRecipeError.

    model, output: instead of the recipe's. overwrite: replace a checkpoint that the output holds, and what is left
    of a stopped run that differs from this one. device: ``cpu`` or ``cuda``; None = cuda where there is one.
    unsure: what becomes of a gate whose interval holds the limit: ``extend`` measures more windows. baseline:
    accepted results to be no worse than. spill: whether calibration activations live in files; auto = where they
    do not fit the memory. recipe_file: where annotations point, if the recipe is given as an object.
    allow_pickle: convert weights that are pickles to safetensors first; tensors alone are unpickled.
    """
    asked = load_recipe(recipe) if isinstance(recipe, str | Path) else recipe
    asked = override(asked, model, output)
    accepted = None if baseline is None else StoredBaseline.read(Path(baseline))
    source = _source(recipe, recipe_file)
    options = Options(overwrite, device, trust_remote_code, command, unsure, accepted, spill, source)
    shown, meter = progress or Quiet(), Meter()
    shown.start("preflight")
    with meter.stage("resolve"):
        model_path = find(asked.model.id, asked.model.revision)
        target = Path(asked.output.path)
        if allow_pickle:
            model_path = without_pickles(model_path, target)
    with staging(target, overwrite, keep=model_path, command=command) as stage:
        with meter.stage("preflight"):
            prepared = preflight(asked, model_path, target, device, trust_remote_code, spill)
            stage.begin(identity_of(prepared), overwrite)
        result = _carry_out(Run(prepared, options, shown, meter, stage))
    shutil.rmtree(converted_folder(target), ignore_errors=True)
    return result


def _source(recipe: Recipe | str | Path, file: str | Path | None) -> dict[str, Any] | None:
    named = recipe if isinstance(recipe, str | Path) else file
    return None if named is None else recipe_source(Path(named))


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
    if run.staging.ended:
        run.progress.note("the run that was stopped here had finished: nothing is left to do but to say so")
        result = ended(run.staging, run.prepared.recipe.output, run.options.unsure)
        remove_scratch(run.staging.scratch)
        return result
    for note in run.prepared.notes:
        run.progress.note(note)
    checkpoint, ledger = _recalled(run) or _made(run)
    with closing(ledger):
        written, found = _found(run, checkpoint, ledger)
    run.progress.start("report")
    report = write_report(written, run.staging, run.prepared.recipe.output)
    run.staging.place()
    code = exit_code(found.gates, run.options.unsure)
    return Result(run.staging.output, report, found.measures, found.gates, code, written)


def _recalled(run: Run) -> tuple[Checkpoint, Ledger] | None:
    kept = recall_checkpoint(run.staging, run.meter)
    if kept is not None:
        run.progress.note("going on behind quantizing: the checkpoint is whole")
    return kept


def _made(run: Run) -> tuple[Checkpoint, Ledger]:
    checkpoint = _quantize(run)
    run.progress.start("finish")
    with run.meter.stage("finish"):
        finish(run.prepared, checkpoint)
    return checkpoint, keep_checkpoint(run.staging, checkpoint, run.meter)


def _found(run: Run, checkpoint: Checkpoint, ledger: Ledger) -> tuple[dict[str, Any], Appraisal]:
    """Verify, measure, judge; what a stopped run had found is not found again."""
    run.progress.start("verify")

    def verified() -> dict[str, Any]:
        began = time.perf_counter()
        answer = verify.verify(run.prepared, checkpoint, run.options.trust_remote_code)
        return {"answer": answer, "seconds": time.perf_counter() - began}

    proof = ledger.once("verified", verified)
    run.meter.add("verify (fresh process)", proof["seconds"], proof["answer"]["peak_memory"])
    size = measure.sizes(run.prepared, checkpoint)
    found = _appraise(run, checkpoint, size, ledger)
    return results.collect(run, checkpoint, results.Findings(proof["answer"], found, size)), found


def _appraise(run: Run, checkpoint: Checkpoint, size: dict[str, Any], ledger: Ledger) -> Appraisal:
    """Measure and judge; verify has found no fault by now."""
    prepared = run.prepared
    evidence = Evidence(faults=(), file_bytes=size["file_bytes"], bits_per_weight=size["bits_per_weight"])
    with run.meter.stage("evaluate"):
        subject = measure.subject_of(prepared, checkpoint, run.progress, run.options.baseline, KeptScores(ledger))
        serving = measure.served(prepared, checkpoint, run.options.trust_remote_code)
        order = Order(prepared.recipe, prepared.tokenizer, subject, run.options.unsure, serving, ledger.once)
        found = appraise(order, evidence)
    return with_peak(found, prepared.recipe, run.meter.peak)


def identity_of(prepared: Prepared) -> dict[str, str]:
    """What a run that goes on must have in common with the one that was stopped."""
    calibration = None if prepared.calibration is None else prepared.calibration.tokens
    tokens = {"calibration tokens": calibration, "witness tokens": prepared.witness}
    return identity(prepared.recipe, prepared.folder, prepared.device, tokens)


def order(prepared: Prepared, stage: Staging, progress: Progress, trust_remote_code: bool = False) -> Job:
    """What the backend is given."""
    return Job(
        recipe=prepared.recipe,
        model_path=prepared.model_path,
        output_path=stage.folder,
        plan=prepared.plan,
        calibration=None if prepared.calibration is None else prepared.calibration.tokens,
        witness=prepared.witness,
        format=prepared.format,
        device=prepared.device,
        progress=progress,
        scratch=stage.scratch,
        spill=prepared.needs.spills,
        trust_remote_code=trust_remote_code,
    )


def _quantize(run: Run) -> Checkpoint:
    prepared = run.prepared
    job = order(prepared, run.staging, run.progress, run.options.trust_remote_code)
    with run.meter.stage("quantize"):
        checkpoint = prepared.backend.quantize(job)
    apart = checkpoint.details.get("own_process")
    if apart:
        run.meter.add(OWN_PROCESS, apart["seconds"], apart["peak_memory"])
    missing = sorted(set(prepared.plan.by_name()) - {layer.name for layer in checkpoint.layers})
    if missing:
        raise BackendError("the backend left layers unquantized", value=missing[0], limit=f"{len(missing)} in all")
    if checkpoint.path != run.staging.folder:
        raise OutputError("the backend wrote elsewhere", value=str(checkpoint.path), limit=str(run.staging.folder))
    return checkpoint
