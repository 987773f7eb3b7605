"""Whether the tensors are laid out as the config claims: the parts of each module, their shapes and dtypes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import Reader, method_of, quantization_config, reader_of
from quantrecipe.modeling.formats.settings import BESIDE
from quantrecipe.runner.checks.report import Integrity
from quantrecipe.safe_json import read_json

#: Suffixes that only one format has.
_MARKS = {
    "weight_packed": "compressed-tensors, packed",
    "weight_scale": "compressed-tensors",
    "SCB": "bitsandbytes, 8 bits",
    "absmax": "bitsandbytes, 4 bits",
    "codes": "quantrecipe",
}
_SAME = {"gptqmodel": "gptq"}


def check_layout(stored: ModelFolder, report: Integrity) -> Reader | None:
    """The reader that the config asks for; None where the tensors are not in its layout (a fault, then).

    Raises ModelError where there is neither a reader for what the config claims nor a layout that belies it.
    """
    report.damaged(_conflicts(stored.path, stored.config))
    found = layout_seen(stored)
    try:
        reader = reader_of(stored)
    except ModelError:
        if found is None or not quantization_config(stored.config, stored.path):
            raise
        claimed = method_of(quantization_config(stored.config, stored.path))
        report.faults.append(f"the config claims {claimed[:60]}, but the tensors are laid out as {found}")
        return None
    modules = reader.modules(stored)
    faults = [fault for module in modules for fault in reader.faults(stored, module)]
    if not modules:
        what = f"the tensors are laid out as {found}" if found else "nothing in it is quantized"
        report.faults.append(f"the config claims {reader.name}, but {what}")
        return None
    if found and not found.startswith(reader.name) and len(faults) >= len(modules):
        report.faults.append(f"the config claims {reader.name}, but the tensors are laid out as {found}")
        return None
    if not report.damaged(faults):
        report.checked.append(f"{len(modules)} quantized modules complete as {reader.name}, shapes and dtypes agree")
        _bits(stored, reader, modules, report)
    return reader


def _conflicts(path: Path, config: dict[str, Any]) -> Iterator[str]:
    """A config beside config.json that says otherwise."""
    main = config.get("quantization_config")
    for name in BESIDE:
        if not isinstance(main, dict) or not (path / name).exists():
            continue
        try:
            beside = read_json(path / name)
        except ModelError as error:
            yield error.line()
            continue
        for key in ("bits", "group_size", "sym", "desc_act", "checkpoint_format"):
            if key in beside and key in main and beside[key] != main[key]:
                yield f"{name} says {key} {beside[key]!r}, config.json {main[key]!r}"


def layout_seen(stored: ModelFolder) -> str | None:
    """The format that the tensors' names and shapes speak of; None where they speak of none."""
    for name in stored.names:
        last = name.rpartition(".")[2]
        if last in _MARKS:
            return _MARKS[last]
        if last == "qweight":
            return _packed_by(stored, name.removesuffix(".qweight"))
    return None


def _packed_by(stored: ModelFolder, module: str) -> str | None:
    """AWQ packs qweight along N, GPTQ along K; scales [G, N] tell which."""
    packed, scales = (f"{module}.{part}" for part in ("qweight", "scales"))
    if scales not in stored or len(stored.info(packed).shape) != 2:
        return None
    wide, outputs = stored.info(packed).shape[1], stored.info(scales).shape[-1:]
    return "gptq" if (wide,) == outputs else "awq" if (wide * 8,) == outputs else None


def _bits(stored: ModelFolder, reader: Reader, modules: list[str], report: Integrity) -> None:
    """True bits a weight, over what is quantized and over all."""
    nbytes = sum(reader.nbytes(stored, module) for module in modules)
    weights = sum(rows * columns for rows, columns in (reader.shape(stored, module) for module in modules))
    parts = {part for module in modules for part in reader.parts(stored, module)}
    others = [stored.info(name) for name in stored.names if name not in parts]
    rest, rest_bytes = sum(info.numel for info in others), sum(info.nbytes for info in others)
    bits, overall = 8 * nbytes / weights, 8 * (nbytes + rest_bytes) / (weights + rest)
    line = f"{bits:.3f} bits a weight, scales and zero points included; {overall:.2f} over the whole model"
    if bits >= 16:
        report.faults.append(f"not really quantized: {line}")
    else:
        report.checked.append(f"really quantized: {line}")
