"""Another loader's weights and logits against those of our reader, both from one checkpoint."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from quantrecipe.runner.quantized import Rounded
from quantrecipe.runner.sources import Reader, Source
from quantrecipe.runner.witness import compare_witness

SEQUENCES, TOKENS = 2, 32


def compare_with_reader(source: Source, request: dict[str, Any]) -> dict[str, Any]:
    """``independent``: whether the loader is another's, ``why`` not; ``compared``, ``witness``, ``faults``."""
    if isinstance(source, Reader):
        return {"independent": False, "why": source.why, "faults": []}
    dtype = getattr(torch, request["dtype"])
    ours = Reader(Path(request["folder"]), dtype, Rounded(), "", request["trust_remote_code"])
    names = ours.quantized()
    faults = [fault for name in names if (fault := _differs(name, source, ours))]
    found: dict[str, Any] = {"independent": True, "compared": len(names), "witness": {"tokens": 0}, "faults": faults}
    if request["inputs_rounded"]:
        return found
    with tempfile.TemporaryDirectory(prefix="quantrecipe-witness-") as scratch:
        path = Path(scratch) / "witness.safetensors"
        tokens = _tokens(ours)
        save_file({"tokens": tokens, "logits": ours.logits(tokens, dtype).float().contiguous()}, path)
        report = compare_witness(source, path, dtype)
    faults += report.pop("faults")
    return found | {"witness": report}


def _tokens(ours: Reader) -> torch.Tensor:
    vocabulary = int(ours.model.config.get_text_config().vocab_size)
    return torch.randint(vocabulary, (SEQUENCES, TOKENS), generator=torch.Generator().manual_seed(0))


def _differs(name: str, source: Source, ours: Reader) -> str | None:
    """Loaders may round once more or once less on the way: two units in the last place of the largest weight."""
    theirs, weight = source.weight(name), ours.weight(name)
    if theirs is None or weight is None:
        return f"{name} has no weight after loading"
    if theirs.shape != weight.shape:
        return f"{name} loads as {list(theirs.shape)}, but reads as {list(weight.shape)}"
    apart = (theirs.to(weight.dtype).float() - weight.float()).abs().max()
    if float(apart) <= 2 * torch.finfo(weight.dtype).eps * float(weight.float().abs().max()):
        return None
    return f"{name} loads as other weights than our reader has"
