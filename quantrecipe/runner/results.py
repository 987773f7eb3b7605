"""results.json: everything that a report, a gate or a comparison later needs, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from quantrecipe import __version__
from quantrecipe.plugins.contract import Checkpoint
from quantrecipe.recipe_file import dump_recipe
from quantrecipe.runner.evaluate import Measures
from quantrecipe.runner.environment import environment
from quantrecipe.runner.gates import GateResult
from quantrecipe.runner.verdict import sentence, status

if TYPE_CHECKING:
    from quantrecipe.runner.pipeline import Run

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Findings:
    """What the stages after quantizing found."""

    verified: dict[str, Any]
    measures: Measures | None
    size: dict[str, Any]
    gates: tuple[GateResult, ...]


def collect(run: Run, checkpoint: Checkpoint, findings: Findings) -> dict[str, Any]:
    """The whole record of a run; docs/running.md describes each key."""
    prepared, recipe = run.prepared, run.prepared.recipe
    measures = None if findings.measures is None else findings.measures.to_json()
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "quantrecipe": __version__,
        "model": _model(run),
        "output": {
            "name": run.staging.output.name,
            "format": checkpoint.format,
            "backend": prepared.backend.name,
            "backend_version": prepared.backend.availability().version,
        },
        "size": findings.size,
        "measures": measures,
        "gates": [gate.to_json() for gate in findings.gates],
        "expected": None if recipe.expected is None else recipe.expected.model_dump(mode="json"),
        "because": [reason.model_dump(mode="json") for reason in recipe.because],
        "layers": [asdict(layer) for layer in checkpoint.layers],
        "calibration": _calibration(run),
        "verified": findings.verified,
        "stages": run.meter.to_json(),
        "recipe": dump_recipe(recipe),
        "environment": environment(prepared.device),
        "command": run.options.command,
        "launch": recipe.launch,
        "notes": [*prepared.notes, *checkpoint.notes],
    }
    found["verdict"] = {"status": status(found), "sentence": sentence(found)}
    return found


def _model(run: Run) -> dict[str, Any]:
    skeleton = run.prepared.skeleton
    return {
        "id": run.prepared.recipe.model.id,
        "revision": run.prepared.recipe.model.revision,
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
