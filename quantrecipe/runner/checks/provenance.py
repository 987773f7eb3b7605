"""provenance.json, where there is one: sha256 of every file, and of every weight as a loader has it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from quantrecipe.errors import ModelError
from quantrecipe.modeling.adapter import ADAPTER
from quantrecipe.modeling.folder import sha256_file
from quantrecipe.runner.checks.report import Integrity
from quantrecipe.runner.finish import PROVENANCE
from quantrecipe.safe_json import read_json


@dataclass(frozen=True, slots=True)
class Provenance:
    """outputs: sha256 by file name. weights: sha256 of each dequantized weight, in the dtype named.

    changed: sha256 of each parameter that a transform has rewritten. adapter: of each tensor of a low-rank adapter.
    """

    outputs: dict[str, str]
    weights: dict[str, str]
    changed: dict[str, str]
    adapter: dict[str, str]
    dtype: str


def read_provenance(path: Path, report: Integrity) -> Provenance | None:
    """What the folder says of itself; None where it says nothing, or nothing readable (which is a fault)."""
    file = path / PROVENANCE
    if not file.exists():
        report.unchecked.append(f"hashes: it has no {PROVENANCE}, so no flipped bit can be told")
        return None
    try:
        record = read_json(file)
    except ModelError as error:
        report.faults.append(f"{PROVENANCE} cannot be read: {error.limit or error.what}")
        return None
    outputs, weights, dtype = (record.get(key) for key in ("outputs", "weights", "weights_dtype"))
    changed, adapter = record.get("changed", {}), record.get("adapter", {})
    hashed = all(map(_hashes, (outputs, weights, changed, adapter)))
    if not (hashed and dtype in ("float32", "bfloat16", "float16")):
        report.faults.append(f"{PROVENANCE} cannot be read: it lacks outputs, weights or weights_dtype")
        return None
    return Provenance(outputs, weights, changed, adapter, str(dtype))  # type: ignore[arg-type]


def _hashes(found: object) -> bool:
    return isinstance(found, dict) and all(isinstance(value, str) for value in found.values())


def check_hashes(path: Path, record: Provenance, report: Integrity) -> None:
    """Every file that the provenance names has the bytes that it had; no weights beside them."""
    if not report.damaged(_changed_files(path, record)):
        report.checked.append(f"sha256 of {len(record.outputs)} files, as in {PROVENANCE}")


def _changed_files(path: Path, record: Provenance) -> list[str]:
    faults = []
    for name, expected in record.outputs.items():
        file = path / name
        inner = name.removeprefix(f"{ADAPTER}/")
        plain = Path(inner).name == inner and len(inner.encode()) < 256 and "\0" not in inner
        if not plain or not file.is_file():
            faults.append(f"{name[:200]} is missing")
        elif sha256_file(file) != expected:
            faults.append(f"{name} has changed since it was written (sha256 differs)")
    extra = sorted(file.name for file in path.glob("*.safetensors") if file.name not in record.outputs)
    return faults + [f"{name} is not among the files that were written" for name in extra]
