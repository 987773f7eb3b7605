"""Compiles hardware.yaml and engines.yaml to ``compiled_tables.json``, which a command reads at start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantrecipe.errors import QuantRecipeError
from quantrecipe.safe_yaml import parse, read_text

FOLDER = Path(__file__).parent


def _read(path: Path) -> Any:
    return parse(read_text(path, "table", QuantRecipeError), path.name, QuantRecipeError).data


def _number(value: Any, whole: bool) -> Any:
    if value is None:
        return None
    return int(float(value)) if whole else float(value)


def _device(entry: dict[str, Any]) -> dict[str, Any]:
    """YAML reads ``85.1e9`` as text; bytes come out whole."""
    fields = {key: value for key, value in entry.items() if key != "aliases"}
    for key in ("memory", "sold_as"):
        fields[key] = _number(fields.get(key), True)
    for key in ("bandwidth", "tflops", "compute_capability"):
        fields[key] = _number(fields.get(key), False)
    return fields


def _check_engine(name: str, entry: dict[str, Any]) -> None:
    """Every row says what was read and at which version, and what was not."""
    for field in ("version", "sources", "unverified"):
        if field not in entry or (field != "unverified" and not entry[field]):
            raise QuantRecipeError("an engine says nothing of where it was read", value=name, limit=f"give {field}")


def compile_tables(folder: Path = FOLDER) -> str:
    """The JSON text of both tables, one line a device and an engine."""
    hardware, engines = (_read(folder / name) for name in ("hardware.yaml", "engines.yaml"))
    aliases = {alias: name for name, entry in hardware["devices"].items() for alias in entry.get("aliases", ())}
    devices = ",\n".join(f"{json.dumps(n)}: {json.dumps(_device(e))}" for n, e in hardware["devices"].items())
    for name, entry in engines.items():
        _check_engine(name, entry)
    programs = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in engines.items())
    head = f'"read": {json.dumps(hardware["read"])}, "device_sources": {json.dumps(hardware["sources"])}, '
    head += f'"device_aliases": {json.dumps(aliases)}'
    return f'{{{head},\n"devices": {{\n{devices}\n}},\n"engines": {{\n{programs}\n}}}}\n'
