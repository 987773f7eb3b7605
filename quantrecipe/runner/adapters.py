"""The low-rank adapter of a checkpoint in the verifying process: compared, then applied by peft where it is there."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from quantrecipe.errors import DamageError, QuantRecipeError
from quantrecipe.modeling.adapter import ADAPTER, PREFIX, adapter_tensors, attach_adapter
from quantrecipe.modeling.digest import digest
from quantrecipe.runner.sources import Source, Whole


def adapter_faults(source: Source, request: dict[str, Any]) -> list[str]:
    """Tensors of the adapter that are not those that were computed; then ``source`` computes with it."""
    folder = Path(request["folder"])
    try:
        faults = list(_compare(adapter_tensors(folder), request["adapter"]))
        _apply(source, folder)
    except QuantRecipeError as error:
        return [error.line()]
    return faults


def _compare(found: dict[str, torch.Tensor], expected: dict[str, str]) -> Iterator[str]:
    for name in sorted(set(found) | {f"{PREFIX}{name}" for name in expected}):
        tensor, wanted = found.get(name), expected.get(name.removeprefix(PREFIX))
        if tensor is None:
            yield f"the adapter lacks {name}"
        elif wanted is None:
            yield f"the adapter holds {name}, which was not written"
        elif digest(tensor) != wanted:
            yield f"the adapter's {name} reads back otherwise than it was written"


def _apply(source: Source, folder: Path) -> None:
    if not isinstance(source, Whole) or find_spec("peft") is None:
        attach_adapter(source.model, folder)
        return
    import peft

    try:
        source.model = peft.PeftModel.from_pretrained(source.model, str(folder / ADAPTER)).eval()
    except Exception as error:  # the library raises errors of many kinds
        raise DamageError("peft cannot load the adapter", limit=f"{type(error).__name__}: {error}"[:300]) from error
    source.label += f" and peft {peft.__version__}"
