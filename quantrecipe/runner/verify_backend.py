"""Proof for a checkpoint that only the library which wrote it reads the same: that library, in a fresh process."""

from __future__ import annotations

import time
from typing import Any

import torch

from quantrecipe.errors import DamageError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.plugins.contract import Checkpoint
from quantrecipe.runner.meter import peak_memory
from quantrecipe.runner.preflight import Prepared


def verify_by_backend(prepared: Prepared, checkpoint: Checkpoint) -> dict[str, Any]:
    """Every stored number finite, logits finite; the backend has compared the reloaded model with its own.

    Raises DamageError. The keys are those of verify_process.answer.
    """
    began = time.perf_counter()
    has_safetensors = any(checkpoint.path.glob("*.safetensors"))
    compared = _check_tensors(ModelFolder.open(checkpoint.path), prepared) if has_safetensors else 0
    model = prepared.backend.load(checkpoint.path, prepared.device)
    try:
        logits = model(prepared.witness).logits
    finally:
        getattr(model, "close", lambda: None)()
    if not bool(torch.isfinite(logits).all()):
        raise DamageError("the reloaded checkpoint gives NaN or infinite logits", value=str(checkpoint.path.name))
    return {
        "loader": f"{prepared.backend.name} {prepared.backend.availability().version}, the only one that reads it",
        "weights": 0,
        "unquantized": compared,
        "witness": None,
        "reload_kl": checkpoint.details.get("reload_kl"),
        "faults": [],
        "fault_count": 0,
        "seconds": time.perf_counter() - began,
        "peak_memory": peak_memory(),
    }


def _check_tensors(stored: ModelFolder, prepared: Prepared) -> int:
    """How many tensors equal the original's. Raises DamageError where one should and does not, or is not finite."""
    quantized = {f"{module.name}.weight" for module in prepared.plan.quantized}
    same = 0
    for name in stored.names:
        tensor = stored.tensor(name)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise DamageError("a stored tensor holds NaN or infinity", value=name)
        if name in prepared.folder and name not in quantized and tensor.dtype == prepared.folder.info(name).dtype:
            if not torch.equal(tensor, prepared.folder.tensor(name)):
                raise DamageError("a tensor that is not quantized differs from the original", value=name)
            same += 1
    return same
