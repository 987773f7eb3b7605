"""Proves that what was saved reads back as what was meant: in a fresh process, with another loader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from quantrecipe.errors import DamageError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.stream import compute_dtype
from quantrecipe.plugins.contract import Checkpoint
from quantrecipe.runner.checks.values import all_scale_faults
from quantrecipe.runner.preflight import Prepared
from quantrecipe.runner.quantized import Rounded
from quantrecipe.runner.verify_backend import verify_by_backend

_MODULE = "quantrecipe.runner.verify_process"


@dataclass(frozen=True, slots=True)
class Request:
    """What the fresh process is asked.

    dtype: what is loaded and computed in. weights: sha256 of the dequantized weight, in that dtype, of each
    quantized module. parameters: how many the model has. rounded: what it rounds as it computes.
    changed: parameters that a transform has rewritten, not compared with the original, and the sha256 of each.
    adapter: sha256 of each tensor of the low-rank adapter beside it. witness: a safetensors file with tokens and
    logits. with_reader: compare weights and logits with our own reader's. inputs_rounded: weights alone, then,
    since loaders round inputs differently.
    """

    folder: Path
    dtype: str
    weights: dict[str, str]
    parameters: int
    rounded: Rounded = field(default_factory=Rounded)
    original: Path | None = None
    changed: dict[str, str] = field(default_factory=dict)
    adapter: dict[str, str] = field(default_factory=dict)
    witness: Path | None = None
    with_reader: bool = False
    inputs_rounded: bool = False
    trust_remote_code: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "folder": str(self.folder),
            "dtype": self.dtype,
            "weights": self.weights,
            "parameters": self.parameters,
            "rounded": self.rounded.to_json(),
            "original": None if self.original is None else str(self.original),
            "changed": self.changed,
            "adapter": self.adapter,
            "witness": None if self.witness is None else str(self.witness),
            "with_reader": self.with_reader,
            "inputs_rounded": self.inputs_rounded,
            "trust_remote_code": self.trust_remote_code,
            "threads": torch.get_num_threads(),
        }


def verify(prepared: Prepared, checkpoint: Checkpoint, trust_remote_code: bool = False) -> dict[str, Any]:
    """The answer of the fresh process. Raises DamageError where anything differs."""
    if checkpoint.details.get("reads_alone"):
        return verify_by_backend(prepared, checkpoint)
    with tempfile.TemporaryDirectory(prefix="quantrecipe-verify-") as scratch:
        request = Request(
            folder=checkpoint.path,
            dtype=dtype_name(compute_dtype(prepared.skeleton.dtype, prepared.device)),
            weights={layer.name: layer.digest for layer in checkpoint.layers if layer.digest},
            parameters=sum(parameter.numel() for parameter in prepared.skeleton.model.parameters()),
            rounded=Rounded.of(prepared.plan),
            original=prepared.model_path,
            changed=dict(checkpoint.details.get("changed_parameters", {})),
            adapter=dict(checkpoint.details.get("adapter", {})),
            witness=_save_witness(Path(scratch), prepared, checkpoint),
            trust_remote_code=trust_remote_code,
        )
        found = ask(request, Path(scratch))
    found["faults"] += all_scale_faults(ModelFolder.open(checkpoint.path))
    found["fault_count"] = max(found["fault_count"], len(found["faults"]))
    raise_faults(found)
    return found


def raise_faults(found: dict[str, Any]) -> None:
    """Raises DamageError naming the first fault and how many there are."""
    if found["faults"]:
        count = found["fault_count"]
        more = f"and {count - 1} more faults" if count > 1 else None
        raise DamageError(f"the saved checkpoint is damaged: {found['faults'][0]}", limit=more)


def dtype_name(dtype: torch.dtype) -> str:
    """Such as ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


def _save_witness(scratch: Path, prepared: Prepared, checkpoint: Checkpoint) -> Path | None:
    from safetensors.torch import save_file

    if checkpoint.witness_logits is None:
        return None
    path = scratch / "witness.safetensors"
    save_file({"tokens": prepared.witness, "logits": checkpoint.witness_logits.float().contiguous()}, path)
    return path


def ask(request: Request, scratch: Path) -> dict[str, Any]:
    """Start the process, wait, read its answer. Raises DamageError where it fails."""
    question, reply = scratch / "request.json", scratch / "answer.json"
    question.write_text(json.dumps(request.to_json()), encoding="utf-8")
    command = [sys.executable, "-m", _MODULE, str(question), str(reply)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode == 0 and reply.exists():
        answer: dict[str, Any] = json.loads(reply.read_text(encoding="utf-8"))
        return answer
    if done.returncode < 0:
        raise DamageError("the verifying process was killed", value=f"signal {-done.returncode}")
    raise DamageError("the saved checkpoint does not load", limit=_last_line(done.stderr))


def _environment() -> dict[str, str]:
    """Offline, and with this package on the path however it was started."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[-1] if lines else "no output")[:400]
