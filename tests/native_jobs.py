"""Runs the native backend on small random models, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import make_plan
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.contract import Checkpoint, Job
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.recipe import Recipe


class Silent:
    """Progress that only remembers notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, stage: str, total: int | None = None, unit: str = "blocks") -> None:
        pass

    def advance(self, amount: int = 1, **details: Any) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def tokens(sequences: int, length: int, vocabulary: int = 160, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, vocabulary, (sequences, length), generator=torch.Generator().manual_seed(seed))


def make_job(  # noqa: PLR0917
    model: Path,
    output: Path,
    groups: dict[str, Any],
    form: str = "compressed-tensors",
    ignore: list[str] | None = None,
    calibration: torch.Tensor | None = None,
    witness: torch.Tensor | None = None,
    kv_cache: dict[str, Any] | None = None,
) -> Job:
    quantization = {"config_groups": groups, "ignore": ["lm_head"] if ignore is None else ignore, "format": form}
    if kv_cache is not None:
        quantization["kv_cache_scheme"] = kv_cache
    recipe = Recipe.model_validate({"model": {"id": str(model)}, "quantization": quantization})
    output.mkdir(parents=True, exist_ok=True)
    return Job(
        recipe=recipe,
        model_path=model,
        output_path=output,
        plan=make_plan(recipe, Skeleton(ModelFolder.open(model)).linears()),
        calibration=tokens(8, 32, seed=1) if calibration is None else calibration,
        witness=tokens(2, 24, seed=2) if witness is None else witness,
        format=form,
        device="cpu",
        progress=Silent(),
    )


def quantize(
    model: Path, output: Path, groups: dict[str, Any], form: str = "compressed-tensors", **more: Any
) -> Checkpoint:
    return NativeBackend().quantize(make_job(model, output, groups, form, **more))


def load_with_transformers(folder: Path, dequantize: bool = True) -> Any:
    import transformers

    config = transformers.CompressedTensorsConfig(dequantize=dequantize)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, quantization_config=config).eval()
