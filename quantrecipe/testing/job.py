"""Orders for a backend under test, and what is asked of their results."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import Plan, make_plan
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.contract import Backend, Checkpoint, Job, LayerRecord
from quantrecipe.recipe import Recipe
from quantrecipe.schemes import QuantizationArgs
from quantrecipe.testing.model import text_tokens
from quantrecipe.testing.reference import relative_error, rounded


class Watcher:
    """Progress that nobody sees; ``killed`` ends the process at its first unit."""

    def __init__(self, killed: bool = False) -> None:
        self.killed = killed

    def start(self, stage: str, total: int | None = None, unit: str = "blocks") -> None:
        """A stage begins; a backend that counts nothing is killed here."""
        if self.killed and total is None and stage.startswith("quantize"):
            os.kill(os.getpid(), signal.SIGKILL)

    def advance(self, amount: int = 1, **details: Any) -> None:
        """A unit is done."""
        if self.killed:
            os.kill(os.getpid(), signal.SIGKILL)

    def note(self, text: str) -> None:
        """Nothing."""


def make_job(  # noqa: PLR0913, PLR0917 - an order has as many parts
    backend: Backend,
    model: Path,
    output: Path,
    group: dict[str, Any],
    scratch: Path | None = None,
    killed: bool = False,
) -> Job:
    """The order: ``group`` for every linear layer; where layers may differ, one stays as it is."""
    from quantrecipe.runner.capability import choose_format

    kept = ["re:.*layers.2.mlp.down_proj"] if backend.capabilities().mixed else []
    recipe = Recipe.model_validate(
        {
            "model": {"id": str(model)},
            "quantization": {"backend": backend.name, "config_groups": {"main": group}, "ignore": ["lm_head", *kept]},
        }
    )
    plan = make_plan(recipe, Skeleton(ModelFolder.open(model)).linears())
    output.mkdir(parents=True, exist_ok=True)
    return Job(
        recipe=recipe,
        model_path=model,
        output_path=output,
        plan=plan,
        calibration=text_tokens(16, 64, seed=1) if plan.needs_calibration else None,
        witness=text_tokens(2, 48, seed=2),
        format=choose_format(recipe, backend.capabilities(), False),
        device="cpu",
        progress=Watcher(killed),
        scratch=scratch,
    )


def carry_out(backend: Backend, job: Job) -> Checkpoint:
    """The backend's work."""
    return backend.quantize(job)


def logits_of(backend: Backend, made: Checkpoint, tokens: torch.Tensor) -> torch.Tensor:
    """Logits [sequences, length, vocabulary] of the checkpoint as the backend loads it."""
    model = backend.load(made.path, "cpu")
    try:
        with torch.no_grad():
            found: torch.Tensor = model(tokens, use_cache=False).logits.float()
        return found
    finally:
        getattr(model, "close", lambda: None)()


def errors_of(backend: Backend, made: Checkpoint, original: Path) -> Iterator[tuple[LayerRecord, float]]:
    """(record, ||W - W_q||_F / ||W||_F of the weight as the backend loads it) of each layer."""
    folder = ModelFolder.open(original)
    model: Any = backend.load(made.path, "cpu")
    try:
        for layer in made.layers:
            if callable(getattr(model, "weight", None)):
                served = model.weight(layer.name, layer.columns)
            else:
                served = model.get_submodule(layer.name).weight.detach()
            yield layer, relative_error(folder.tensor(f"{layer.name}.weight"), served)
    finally:
        getattr(model, "close", lambda: None)()


def original_logits(
    folder: Path, tokens: torch.Tensor, args: QuantizationArgs | None = None, plan: Plan | None = None
) -> torch.Tensor:
    """Logits of the original in fp32; with ``args``, of the same with the planned weights rounded to nearest.

    A codebook (nf4, fp4) is stood in for by symmetric integers of as many bits and groups, which lose more.
    """
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for name in plan.by_name() if args and plan else ():
            weight = model.get_submodule(name).weight
            assert args is not None
            weight.copy_(rounded(weight, args))
        logits: torch.Tensor = model(tokens, use_cache=False).logits
    return logits


def spoil(model: Path, target: Path) -> Path:
    """A copy of the model with one NaN in one weight."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, target)
    path = target / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(tensors, path, {"format": "pt"})
    return target
