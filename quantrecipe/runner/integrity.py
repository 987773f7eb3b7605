"""``qrun verify FOLDER``: the integrity of a checkpoint, ours or not. checks/ has a module a kind of evidence."""

from __future__ import annotations

from pathlib import Path

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import quantization_config
from quantrecipe.runner.checks.layout import check_layout
from quantrecipe.runner.checks.loading import check_loading
from quantrecipe.runner.checks.original import check_kept, check_original, counterparts, rewritten
from quantrecipe.runner.checks.promises import check_promises
from quantrecipe.runner.checks.provenance import Provenance, check_hashes, read_provenance
from quantrecipe.runner.checks.report import Integrity
from quantrecipe.runner.checks.values import check_values


def verify_folder(path: Path, original: str | None = None, trust_remote_code: bool = False) -> Integrity:
    """Check a quantized checkpoint. Raises ModelError where there is none to judge, or no reader for it."""
    if not path.is_dir():
        raise ModelError("no such folder", value=str(path), remedy="give the folder of a quantized checkpoint")
    report = Integrity(path)
    record = read_provenance(path, report)
    if record is not None:
        check_hashes(path, record, report)
    stored = _open(path, record, report)
    if stored is None:
        return report
    before = None if original is None else _original(original)
    reader = check_layout(stored, report)
    if reader is None:
        return report
    sound = not report.faults
    skeleton = check_promises(stored, reader, report, trust_remote_code)
    check_values(stored, reader, record, report, channels=before is None)
    if before is None:
        report.unchecked.append("weights against the original: give --original to compare them")
    else:
        names = counterparts(stored, skeleton, before)
        check_original(stored, reader, before, names, report)
        changed = rewritten(record, skeleton)
        kept = {name: other for name, other in names.items() if name not in changed}
        check_kept(stored, reader, before, kept, report)
    if sound and skeleton is not None:
        check_loading(stored, reader, record, report, trust_remote_code)
    else:
        report.unchecked.append("an independent loader: not tried on a damaged checkpoint")
    return report


def _open(path: Path, record: Provenance | None, report: Integrity) -> ModelFolder | None:
    """The folder; None where it cannot be read though it should be (a fault, then), or only its library reads it."""
    alone = sorted(one.name for one in path.iterdir() if one.suffix in (".pt2", ".gguf"))
    if record is not None and alone and not any(path.glob("*.safetensors")):
        report.unchecked.append(f"{alone[0]}: its own library alone reads it; hashes tell whether it is as written")
        return None
    try:
        stored = ModelFolder.open(path)
    except ModelError as error:
        if record is None and not _has_weights(path):
            raise
        report.faults.append(error.line())
        return None
    if not quantization_config(stored.config, path):
        limit = "config.json has no quantization_config"
        if record is None:
            raise ModelError("the model is not quantized", value=str(path), limit=limit)
        report.faults.append(f"the model is not quantized; {limit}")
        return None
    return stored


def _has_weights(path: Path) -> bool:
    return (path / "config.json").exists() and any(path.glob("*.safetensors*"))


def _original(name: str) -> ModelFolder:
    from quantrecipe.runner.locate import find

    return ModelFolder.open(find(name))
