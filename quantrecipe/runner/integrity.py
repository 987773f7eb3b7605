"""``qrun verify FOLDER``: the integrity of a checkpoint: hashes, structure, scales, true bits, and that it loads."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantrecipe.errors import DamageError, ModelError
from quantrecipe.modeling.adapter import ADAPTER
from quantrecipe.modeling.folder import ModelFolder, sha256_file
from quantrecipe.runner.finish import PROVENANCE
from quantrecipe.runner.structure import bits_per_weight, packed_modules, scale_faults, structure_faults
from quantrecipe.runner.verify import Request, ask


@dataclass(slots=True)
class Integrity:
    """What was checked, what is wrong, and what could not be checked."""

    folder: Path
    checked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 where anything is wrong."""
        return 1 if self.faults else 0

    def lines(self) -> Iterator[str]:
        """The report, the verdict last."""
        yield from (f"ok         {line}" for line in self.checked)
        yield from (f"unchecked  {line}" for line in self.unchecked)
        yield from (f"DAMAGED    {line}" for line in self.faults)
        count = len(self.faults)
        yield f"{self.folder}: " + (f"damaged, {count} fault{'s' if count > 1 else ''}" if count else "sound")


def verify_folder(path: Path, original: str | None = None) -> Integrity:
    """Check a quantized checkpoint. Raises ModelError where there is no such folder or it is no quantized model."""
    report = Integrity(path)
    if not path.is_dir():
        raise ModelError("no such folder", value=str(path), remedy="give the folder that qrun wrote")
    record = _provenance(path, report)
    if record is not None:
        _hashes(path, record, report)
    try:
        stored = ModelFolder.open(path)
    except ModelError as error:
        if not (path / "config.json").exists() and record is None:
            raise
        report.faults.append(error.line())
        return report
    if "quantization_config" not in stored.config:
        raise ModelError(
            "the model is not quantized", value=str(path), limit="config.json has no quantization_config"
        )
    _structure(stored, report)
    if not report.faults:
        _load(path, stored, record, original, report)
    return report


def _provenance(path: Path, report: Integrity) -> dict[str, Any] | None:
    file = path / PROVENANCE
    if not file.exists():
        report.unchecked.append(f"hashes: it has no {PROVENANCE}, so no flipped bit can be told")
        return None
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        outputs = {str(name): str(value) for name, value in record["outputs"].items()}
        dtype = str(record["weights_dtype"])
        weights = {str(name): str(value) for name, value in record["weights"].items()}
        changed, adapter = (
            {str(name): str(value) for name, value in record.get(part, {}).items()} for part in ("changed", "adapter")
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        report.faults.append(f"{PROVENANCE} cannot be read")
        return None
    return {"outputs": outputs, "weights": weights, "changed": changed, "adapter": adapter, "dtype": dtype}


def _hashes(path: Path, record: dict[str, Any], report: Integrity) -> None:
    """Every file that the provenance names has the bytes that it had."""
    for name, expected in record["outputs"].items():
        file = path / name
        inner = name.removeprefix(f"{ADAPTER}/")
        if Path(inner).name != inner or not file.is_file():
            report.faults.append(f"{name} is missing")
        elif sha256_file(file) != expected:
            report.faults.append(f"{name} has changed since it was written (sha256 differs)")
    if not report.faults:
        report.checked.append(f"sha256 of {len(record['outputs'])} files, as in {PROVENANCE}")


def _structure(stored: ModelFolder, report: Integrity) -> None:
    modules = packed_modules(stored)
    faults = [*structure_faults(stored, modules), *scale_faults(stored)]
    report.faults += faults
    if not faults:
        bits = bits_per_weight(modules)
        report.checked.append(f"{len(modules)} quantized modules complete, shapes agree, scales finite and positive")
        report.checked.append(f"really quantized: {bits:.3f} bits a weight, scales and zero points included")


def _load(path: Path, stored: ModelFolder, record: Any, original: str | None, report: Integrity) -> None:
    """Load it in a fresh process; compare with provenance and original where they are at hand."""
    from quantrecipe.runner.locate import find

    named = str(stored.config.get("dtype") or stored.config.get("torch_dtype") or "float32").removeprefix("torch.")
    dtype = record["dtype"] if record else named
    source = None if original is None else find(original)
    parameters = sum(module.weights for module in packed_modules(stored))
    known = {part: record[part] if record else {} for part in ("weights", "changed", "adapter")}
    request = Request(path, dtype, parameters=parameters, original=source, **known)
    try:
        with tempfile.TemporaryDirectory(prefix="quantrecipe-verify-") as scratch:
            found = ask(request, Path(scratch))
    except DamageError as error:
        report.faults.append(error.line())
        return
    report.faults += found["faults"]
    report.checked.append(f"loads with {found['loader']}")
    if "adapter" in found:
        report.checked.append(f"{found['adapter']} tensors of its low-rank adapter are those that were written")
    if record:
        report.checked.append(f"{found['weights']} dequantized weights are those that were chosen")
    else:
        report.unchecked.append("weights: without provenance there is nothing to compare them with")
    if source is None:
        report.unchecked.append("unquantized tensors: give --original to compare them")
    else:
        report.checked.append(f"{found['unquantized']} unquantized tensors equal the original's")
