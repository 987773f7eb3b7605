"""A job as a worker reads it: plain JSON, with tokens in a safetensors file beside it (docs/backends/protocol.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.contract import Job

PROTOCOL = 1
#: Where a worker leaves the logits [sequences, tokens, vocabulary] of the model that it holds in memory.
WITNESS_ANSWER = "witness-answer.safetensors"


def quantize_job(job: Job, scratch: Path) -> Path:
    """Write the order to quantize; its path."""
    skeleton = Skeleton(ModelFolder.open(job.model_path), job.trust_remote_code)
    calibration = None
    if job.calibration is not None and job.plan.needs_calibration:
        calibration = scratch / "calibration.safetensors"
        save_file({"tokens": job.calibration.contiguous()}, calibration)
    save_file({"tokens": job.witness.contiguous()}, scratch / "witness.safetensors")
    group = {planned.name: planned.group for planned in job.plan.quantized}
    modules = {
        name: {
            "weights": one.weights.model_dump(mode="json"),
            "input_activations": None
            if one.input_activations is None
            else one.input_activations.model_dump(mode="json"),
            "method": one.method.model_dump(mode="json"),
        }
        for name, one in group.items()
        if one is not None
    }
    kept = [
        planned.name for planned in job.plan.modules if planned.group is None and planned.info.kind != "Embedding"
    ]
    order = {
        **common("quantize", job.model_path, job.device, job.recipe.calibration.seed, job.trust_remote_code),
        "output": str(job.output_path.resolve()),
        "dtype": str(skeleton.dtype).removeprefix("torch."),
        "format": job.format,
        "modules": modules,
        "kept": kept,
        "witness": str(scratch / "witness.safetensors"),
        "witness_answer": str(scratch / WITNESS_ANSWER),
        "calibration": None if calibration is None else str(calibration),
    }
    return _write(order, scratch / "quantize.json")


def serve_job(checkpoint: Path, device: str, scratch: Path) -> Path:
    """Write the order to reload a checkpoint and answer requests; its path."""
    return _write(common("serve", checkpoint, device, 0, False), scratch / "serve.json")


def common(task: str, model: Path, device: str, seed: int, trust_remote_code: bool) -> dict[str, Any]:
    """What every order holds."""
    return {
        "protocol": PROTOCOL,
        "task": task,
        "model": str(model.resolve()),
        "device": device,
        "seed": seed,
        "threads": torch.get_num_threads(),
        "trust_remote_code": trust_remote_code,
    }


def _write(order: dict[str, Any], path: Path) -> Path:
    path.write_text(json.dumps(order, indent=1, sort_keys=True), encoding="utf-8")
    return path
