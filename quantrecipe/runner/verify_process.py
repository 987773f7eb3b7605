"""What runs in the fresh process: load the saved checkpoint with a loader that is not ours and compare.

``python -m quantrecipe.runner.verify_process REQUEST.json ANSWER.json``; see verify.py for both.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from quantrecipe.errors import QuantRecipeError
from quantrecipe.modeling.digest import digest
from quantrecipe.modeling.experts import single_names
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.names import stored_names
from quantrecipe.runner.adapters import adapter_faults
from quantrecipe.runner.meter import peak_memory
from quantrecipe.runner.reader_check import compare_with_reader
from quantrecipe.runner.sources import Source, open_source
from quantrecipe.runner.witness import compare_witness

MOST_FAULTS = 20


def main(request_path: str, answer_path: str) -> None:
    """Carry one request out and write the answer; an error is one line on stderr."""
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    try:
        text = json.dumps(answer(request), sort_keys=True)
    except QuantRecipeError as error:
        sys.exit(error.line())
    Path(answer_path).write_text(text, encoding="utf-8")


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Load, compare weights, unquantized tensors and witness logits; every fault as one line."""
    began = time.perf_counter()
    torch.set_num_threads(int(request["threads"]))
    source = open_source(request)
    faults = [*_weight_faults(source, request["weights"]), *_changed_faults(source, request)]
    compared, more = _unquantized(source, request)
    faults += more
    found: dict[str, Any] = {"weights": len(request["weights"])}
    found |= {"unquantized": compared, "changed": len(request["changed"])}
    if request["with_reader"]:
        more_found = compare_with_reader(source, request)
        faults += more_found.pop("faults")
        found |= more_found
    if request["adapter"]:
        faults += adapter_faults(source, request)
        found["adapter"] = len(request["adapter"])
    if request["witness"]:
        report = compare_witness(source, Path(request["witness"]), getattr(torch, request["dtype"]))
        faults += report.pop("faults")
        found["witness"] = report
    found |= {"loader": source.label, "faults": faults[:MOST_FAULTS], "fault_count": len(faults)}
    return found | {"seconds": time.perf_counter() - began, "peak_memory": peak_memory()}


def _weight_faults(source: Source, weights: dict[str, str]) -> Iterator[str]:
    """Dequantized weights that are not the ones that were chosen."""
    for name, expected in weights.items():
        weight = source.weight(name)
        if weight is None:
            yield f"{name} has no weight after loading"
        elif not bool(torch.isfinite(weight).all()):
            yield f"{name} holds NaN or infinity"
        elif digest(weight) != expected:
            yield f"{name} reads back as other weights than were written"


def _changed_faults(source: Source, request: dict[str, Any]) -> Iterator[str]:
    """Parameters that a transform rewrote and that are not what it made of them."""
    present = dict(source.model.named_parameters(remove_duplicate=False))
    dtype = getattr(torch, request["dtype"])
    for name, expected in request["changed"].items():
        if name not in present:
            yield f"{name} is missing after loading"
        elif digest(source.tensor(name).to(dtype)) != expected:
            yield f"{name} reads back otherwise than a transform made it"


def _unquantized(source: Source, request: dict[str, Any]) -> tuple[int, list[str]]:
    """How many tensors equal the original's, and the faults of those that should; none without an original."""
    skip = {f"{name}.weight" for name in request["weights"]}
    names = [name for name in single_names(source.model) if name not in skip and not _is_part(name)]
    faults = [f"{name} holds NaN or infinity" for name in names if not _finite(source.tensor(name))]
    if not request["original"]:
        return 0, faults
    original = ModelFolder.open(request["original"])
    stored = stored_names(source.model, original.names)
    compared = [name for name in names if name in stored and name not in request["changed"]]
    for name in compared:
        tensor = source.tensor(name)
        if not torch.equal(tensor, stored.read(original, name).to(tensor.dtype)):
            faults.append(f"{name} is not quantized, yet differs from the original")
    return len(compared), faults


def _is_part(name: str) -> bool:
    """Whether a loader left it beside a dequantized weight."""
    return name.endswith(("weight_scale", "weight_zero_point", "weight_g_idx", "input_scale"))


def _finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


if __name__ == "__main__":
    main(*sys.argv[1:3])
