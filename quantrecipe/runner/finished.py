"""A checkpoint that is whole, and a run that had ended: told from their journal by one that goes on."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from quantrecipe.modeling.folder import sha256_file
from quantrecipe.modeling.journal import read_lines
from quantrecipe.plugins.contract import Checkpoint, LayerRecord
from quantrecipe.recipe import Output
from quantrecipe.runner.baseline import read_results
from quantrecipe.runner.finish import PROVENANCE, RESULTS
from quantrecipe.runner.judge import GateResult, Unsure, exit_code
from quantrecipe.runner.ledger import FOUND, Ledger
from quantrecipe.runner.meter import Meter, StageRecord
from quantrecipe.runner.report.write import report_path
from quantrecipe.runner.result import Result, measures_of
from quantrecipe.runner.staging import Staging
from quantrecipe.safe_json import read_json

MADE = "checkpoint"
WITNESS = "logits"


def keep_checkpoint(stage: Staging, checkpoint: Checkpoint, meter: Meter) -> Ledger:
    """Journal that the checkpoint in the staging folder is whole; the ledger of what is found about it."""
    ledger = Ledger(stage.scratch, sha256_file(stage.folder / PROVENANCE))
    told = {
        "format": checkpoint.format,
        "layers": [asdict(layer) for layer in checkpoint.layers],
        "notes": list(checkpoint.notes),
        "details": checkpoint.details,
        "stages": meter.to_json(),
    }
    logits = checkpoint.witness_logits
    ledger.keep(MADE, told, None if logits is None else {WITNESS: logits})
    return ledger


def recall_checkpoint(stage: Staging, meter: Meter) -> tuple[Checkpoint, Ledger] | None:
    """The checkpoint that a stopped run had finished, if each of its files still is what provenance says.

    The meter gets the stages of that run.
    """
    path = stage.folder / PROVENANCE
    if not path.is_file() or not any(line["kind"] == FOUND for line in read_lines(stage.scratch)):
        return None
    ledger = Ledger(stage.scratch, sha256_file(path))
    told = ledger.data(MADE)
    if told is None or not _is_whole(stage, read_json(path)["outputs"]):
        ledger.close()
        return None
    meter.stages[:] = [StageRecord(**row) for row in told["stages"]]
    return _checkpoint(stage, told, ledger), ledger


def _checkpoint(stage: Staging, told: dict[str, Any], ledger: Ledger) -> Checkpoint:
    return Checkpoint(
        path=stage.folder,
        format=told["format"],
        layers=tuple(LayerRecord(**row) for row in told["layers"]),
        witness_logits=(ledger.tensors(MADE) or {}).get(WITNESS),
        notes=tuple(told["notes"]),
        details=told["details"],
    )


def _is_whole(stage: Staging, outputs: dict[str, str]) -> bool:
    paths = {stage.folder / name: digest for name, digest in outputs.items()}
    return all(path.is_file() and sha256_file(path) == digest for path, digest in paths.items())


def ended(stage: Staging, output: Output, unsure: Unsure) -> Result:
    """The outcome of a run that was stopped behind its last step, from the results.json that it wrote."""
    found = read_results(stage.output / RESULTS)
    gates = tuple(GateResult(**{**row, "faults": tuple(row["faults"])}) for row in found["gates"])
    report = report_path(stage.output, output)
    return Result(stage.output, report, measures_of(found["measures"]), gates, exit_code(gates, unsure), found)
