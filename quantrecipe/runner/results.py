"""results.json: everything that a report, a gate or a comparison later needs, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from quantrecipe import __version__
from quantrecipe.plugins.contract import Checkpoint
from quantrecipe.recipe import Recipe
from quantrecipe.recipe_file import dump_recipe
from quantrecipe.runner.appraise import Appraisal
from quantrecipe.runner.baseline import SCHEMA, StoredBaseline, window_rows
from quantrecipe.runner.environment import environment
from quantrecipe.runner.foreign import format_name
from quantrecipe.runner.gates import TaskAnswers, task_drop
from quantrecipe.runner.looks import Trial
from quantrecipe.runner.next_steps import next_steps
from quantrecipe.runner.stats.share import Accuracy
from quantrecipe.runner.suspects import suspects
from quantrecipe.runner.verdict import sentence, status

if TYPE_CHECKING:
    from quantrecipe.modeling.skeleton import Skeleton
    from quantrecipe.runner.checks.report import Integrity
    from quantrecipe.runner.gate import Gating
    from quantrecipe.runner.pipeline import Run


@dataclass(frozen=True, slots=True)
class Findings:
    """What the stages after quantizing found."""

    verified: dict[str, Any]
    appraisal: Appraisal
    size: dict[str, Any]


def collect(run: Run, checkpoint: Checkpoint, findings: Findings) -> dict[str, Any]:
    """The whole record of a run; docs/running.md describes each key."""
    prepared, recipe = run.prepared, run.prepared.recipe
    layers = [asdict(layer) for layer in checkpoint.layers]
    found: dict[str, Any] = {
        **_head(),
        "model": _model_row(recipe, prepared.skeleton),
        "output": {
            "name": run.staging.output.name,
            "format": checkpoint.format,
            "backend": prepared.backend.name,
            "backend_version": prepared.backend.availability().version,
        },
        "size": findings.size,
        **appraised(findings.appraisal),
        **explained(recipe, findings.appraisal, layers, run.options.baseline),
        "expected": None if recipe.expected is None else recipe.expected.model_dump(mode="json"),
        "because": [reason.model_dump(mode="json") for reason in recipe.because],
        "layers": layers,
        "calibration": _calibration(run),
        "verified": findings.verified,
        "stages": run.meter.to_json(),
        "recipe": dump_recipe(recipe),
        "recipe_file": run.options.recipe_file,
        "environment": environment(prepared.device),
        "command": run.options.command,
        "launch": recipe.launch,
        "notes": [*prepared.notes, *checkpoint.notes],
    }
    found["verdict"] = {"status": status(found), "sentence": sentence(found)}
    return found


def gated(
    run: Gating, found: Appraisal, size: dict[str, Any], layers: list[dict[str, Any]], report: Integrity
) -> dict[str, Any]:
    """The record of a judged checkpoint that was made elsewhere or before."""
    request, recipe = run.request, run.request.recipe
    told = {
        **_head(),
        "model": _model_row(recipe, run.skeleton),
        "output": {
            "name": request.folder.resolve().name,
            "format": format_name(request.folder),
            "backend": None,
            "backend_version": None,
        },
        "size": size,
        **appraised(found),
        **explained(recipe, found, layers, request.baseline),
        "expected": None if recipe.expected is None else recipe.expected.model_dump(mode="json"),
        "because": [reason.model_dump(mode="json") for reason in recipe.because],
        "layers": layers,
        "calibration": None,
        "verified": {key: getattr(report, key) for key in ("checked", "unchecked", "faults", "suspects")},
        "stages": run.meter.to_json(),
        "recipe": dump_recipe(recipe),
        "recipe_file": request.recipe_file,
        "environment": environment(run.device),
        "command": request.command,
        "launch": recipe.launch,
        "notes": run.notes,
    }
    return told | {"verdict": {"status": status(told), "sentence": sentence(told)}}


def _head() -> dict[str, Any]:
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"schema": SCHEMA, "quantrecipe": __version__, "created": created}


def appraised(found: Appraisal) -> dict[str, Any]:
    """What was measured and judged."""
    trial = found.trial
    return {
        "measures": None if found.measures is None else found.measures.to_json(),
        "gates": [gate.to_json() for gate in trial.gates],
        "looks": list(trial.looks),
        "windows": None
        if trial.windows is None or trial.scores is None
        else window_rows(trial.windows, trial.scores),
        "tasks": {name: task_row(answers) for name, answers in found.tasks.items()},
        "speed": found.details.get("speed"),
        "generations": found.details.get("generations", []),
        "profile": found.details.get("profile"),
        "runtime": found.details.get("runtime", []),
    }


def explained(
    recipe: Recipe, found: Appraisal, layers: list[dict[str, Any]], accepted: StoredBaseline | None
) -> dict[str, Any]:
    """Which layers stand out, what to try next, and what was compared with."""
    named = suspects(layers, None if accepted is None else accepted.results["layers"])
    gates = [gate.to_json() for gate in found.gates]
    return {
        "suspects": named,
        "next": next_steps(recipe, gates, named),
        "baseline": None if accepted is None else baseline_row(accepted, found.trial),
    }


def baseline_row(accepted: StoredBaseline, trial: Trial) -> dict[str, Any]:
    """The accepted result in short."""
    shared = trial.evidence.baseline
    return {
        "name": accepted.results["output"]["name"],
        "quantized_perplexity": accepted.results["measures"]["quantized_perplexity"],
        "windows": 0 if shared is None else len(shared),
    }


def task_row(answers: TaskAnswers) -> dict[str, Any]:
    """Accuracies of a task with their intervals, and what was lost."""
    count = len(answers.original)
    accuracies = [Accuracy(sum(right), count).interval().to_json() for right in (answers.original, answers.quantized)]
    return {
        "metric": answers.metric,
        "questions": count,
        "original": accuracies[0],
        "quantized": accuracies[1],
        "drop": task_drop(answers).interval().to_json(),
    }


def _model_row(recipe: Recipe, skeleton: Skeleton) -> dict[str, Any]:
    return {
        "id": recipe.model.id,
        "revision": recipe.model.revision,
        "architecture": type(skeleton.model).__name__,
        "blocks": len(skeleton.blocks),
        "parameters": sum(parameter.numel() for parameter in skeleton.model.parameters()),
        "dtype": str(skeleton.dtype).removeprefix("torch."),
    }


def _calibration(run: Run) -> dict[str, Any] | None:
    given = run.prepared.calibration
    if given is None:
        return None
    samples, length = given.tokens.shape
    return {
        "dataset": given.dataset,
        "samples": samples,
        "sequence_length": length,
        "tokens": samples * length,
        "text_tokens": given.text_tokens,
        "seed": run.prepared.recipe.calibration.seed,
    }
