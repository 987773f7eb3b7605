"""Why a weight is not the original's: another reading of the same bytes, or another module's weight, that fits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import Reader, quantization_config
from quantrecipe.modeling.formats.awq import ORDER, AwqReader
from quantrecipe.modeling.formats.gptq import GptqReader

#: Another reading must have less than this share of the error to be named.
BETTER = 0.6
MOST_SIBLINGS = 64


def diagnose(  # noqa: PLR0913, PLR0917 - what went wrong with one module
    stored: ModelFolder, reader: Reader, original: ModelFolder, module: str, error: float, names: dict[str, str]
) -> str:
    """``: it is …``, or nothing where no other reading fits."""
    weight = _weight(original, names, module)
    for text, other in _readings(stored, reader):
        if weight is not None and _error(stored, other, module, weight) < BETTER * error:
            return f": {text}"
    for sibling in islice(_siblings(reader, stored, module), MOST_SIBLINGS):
        other_weight = _weight(original, names, sibling)
        if other_weight is not None and _error(stored, reader, module, other_weight) < BETTER * error:
            return f": it is {sibling}'s"
    return ""


def _weight(original: ModelFolder, names: dict[str, str], module: str) -> torch.Tensor | None:
    name = names.get(f"{module}.weight")
    return None if name is None else original.tensor(name).float()


def _error(stored: ModelFolder, reader: Reader, module: str, weight: torch.Tensor) -> float:
    try:
        served = reader.decode(stored, module).weight(torch.float32)
    except ModelError:
        return float("inf")
    if served.shape != weight.shape:
        weight = weight.t()
    if served.shape != weight.shape:
        return float("inf")
    return float((weight - served).norm() / weight.norm().clamp_min(1e-30))


def _readings(stored: ModelFolder, reader: Reader) -> Iterator[tuple[str, Reader]]:
    config = quantization_config(stored.config, stored.path)
    if isinstance(reader, GptqReader):
        other = "gptq_v2" if reader.version == 1 else "gptq"
        said = f"its zero points are stored as {other} does, not as the config says"
        yield said, GptqReader({**config, "checkpoint_format": other})
    if isinstance(reader, AwqReader):
        yield "its nibbles are in plain order, not AWQ's", AwqReader(config, tuple(range(8)))
        yield "its nibbles were put in AWQ's order the wrong way round", AwqReader(config, ORDER)


def _siblings(reader: Reader, stored: ModelFolder, module: str) -> Iterator[str]:
    """Modules of the same shape, those of the same block first."""
    shape, block = reader.shape(stored, module), module.rpartition(".")[0].rpartition(".")[0]
    others = [name for name in reader.modules(stored) if name != module]
    for name in sorted(others, key=lambda name: not name.startswith(block)):
        if not any(reader.faults(stored, name)) and reader.shape(stored, name) == shape:
            yield name
