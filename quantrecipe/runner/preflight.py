"""Everything that can be known to go wrong before any long work, checked in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quantrecipe.errors import BackendError, ModelError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import Plan, make_plan
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.stream import compute_dtype
from quantrecipe.plugins.contract import Backend
from quantrecipe.recipe import Recipe
from quantrecipe.runner.calibration import CalibrationTokens, calibration_tokens
from quantrecipe.runner.capability import choose_backend
from quantrecipe.runner.engine_check import check_engine, is_odd
from quantrecipe.runner.evaluate import evaluation_windows
from quantrecipe.runner.inputs import check_inputs
from quantrecipe.runner.needs import Needs, Sizes, Spill, beside, check_disk, check_memory, count_needs, fits
from quantrecipe.runner.needs_training import Step, training_memory
from quantrecipe.runner.plan_notes import plan_notes
from quantrecipe.runner.tasks import check_tasks
from quantrecipe.runner.tokens import Windows, load_tokenizer

WITNESS_SEQUENCES, WITNESS_TOKENS = 2, 64


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recipe that can be carried out, with all that this takes.

    longest: the model's limit of positions. witness: int64 [sequences, tokens]. notes: lines for the user.
    """

    recipe: Recipe
    model_path: Path
    folder: ModelFolder
    skeleton: Skeleton
    plan: Plan
    backend: Backend
    format: str
    device: str
    tokenizer: Any
    calibration: CalibrationTokens | None
    windows: Windows | None
    witness: torch.Tensor
    needs: Needs
    notes: tuple[str, ...]


def choose_device(asked: str | None) -> str:
    """``cuda`` where there is one, unless asked otherwise. Raises BackendError where the one asked for is absent."""
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise BackendError("no CUDA device here", value=asked, remedy="use --device cpu")
    return asked or ("cuda" if there else "cpu")


def preflight(  # noqa: PLR0913, PLR0917 - what was said on the command line
    recipe: Recipe,
    model_path: Path,
    output: Path,
    device: str | None = None,
    trust_remote_code: bool = False,
    spill: Spill = "auto",
) -> Prepared:
    """Check the recipe against model, backend, engine, texts, disk and memory. Raises QuantRecipeError."""
    check_tasks(recipe)
    where = choose_device(device)
    folder = ModelFolder.open(model_path)
    if "quantization_config" in folder.config:
        raise ModelError("the model is quantized already", value=str(model_path), remedy="start from the original")
    skeleton = Skeleton(folder, trust_remote_code)
    check_inputs(skeleton)
    plan = make_plan(recipe, skeleton.linears())
    backend, form, note = choose_backend(recipe, is_odd(plan), where)
    check_engine(recipe, plan, form)
    needs = _fitting_needs(recipe, plan, skeleton, backend, spill, where)
    check_disk(needs, output)
    check_memory(needs, where)
    tokenizer = load_tokenizer(model_path, trust_remote_code)
    longest = position_limit(skeleton)
    calibration = calibration_tokens(recipe.calibration, tokenizer, longest) if plan.needs_calibration else None
    part = recipe.evaluation.perplexity
    given = evaluation_windows(part, tokenizer, longest) if part else None
    notes = (*note, *plan_notes(recipe, plan, form), *_notes(recipe, calibration, given, longest))
    return Prepared(
        recipe, model_path, folder, skeleton, plan, backend, form, where, tokenizer, calibration, given,
        witness_tokens(given, skeleton), needs, notes,
    )  # fmt: skip


def _fitting_needs(  # noqa: PLR0913, PLR0917 - what a run is decided by
    recipe: Recipe, plan: Plan, skeleton: Skeleton, backend: Backend, spill: Spill, device: str
) -> Needs:
    """What the run will take; activations are spilled to files where asked for, or where they do not fit."""
    if spill != "always":
        needs = plan_needs(recipe, plan, skeleton, backend, device)
        if spill == "never" or fits(needs, device):
            return needs
    return plan_needs(recipe, plan, skeleton, backend, device, spills=True)


def plan_needs(  # noqa: PLR0913, PLR0917 - what a run is decided by
    recipe: Recipe, plan: Plan, skeleton: Skeleton, backend: Backend, device: str, spills: bool = False
) -> Needs:
    """What the run will take, from the model's shapes."""
    config = skeleton.model.config.get_text_config()
    training = recipe.quantization.training
    length = min(recipe.calibration.sequence_length, position_limit(skeleton) or recipe.calibration.sequence_length)
    sizes = Sizes(
        itemsize=skeleton.dtype.itemsize,
        hidden=int(config.hidden_size),
        calibration_tokens=recipe.calibration.samples * length if plan.needs_calibration else 0,
        computed=compute_dtype(skeleton.dtype, device).itemsize,
        streams=backend.capabilities().streams,
        spills=spills,
        beside=beside(recipe, plan, skeleton.dtype.itemsize),
        training=None if training is None else training_memory(plan, training, _training_step(skeleton, length)),
    )
    return count_needs(plan, skeleton.folder.nbytes, sizes)


def _training_step(skeleton: Skeleton, length: int) -> Step:
    by_name = {skeleton.written_name(name): one.numel() for name, one in skeleton.model.named_parameters()}
    return Step(sum(by_name.values()), int(skeleton.model.config.get_text_config().vocab_size), length)


def position_limit(skeleton: Skeleton) -> int | None:
    """The longest window that the model takes; None where its config names no limit."""
    limit = getattr(skeleton.model.config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def witness_tokens(given: Windows | None, skeleton: Skeleton) -> torch.Tensor:
    """Tokens whose logits prove that the checkpoint reads back the same: real text, or seeded random ids."""
    if given is not None:
        return given.tokens[:WITNESS_SEQUENCES, :WITNESS_TOKENS].clone()
    vocabulary = int(skeleton.model.config.get_text_config().vocab_size)
    length = min(WITNESS_TOKENS, position_limit(skeleton) or WITNESS_TOKENS)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (WITNESS_SEQUENCES, length), generator=generator)


def _notes(
    recipe: Recipe, calibration: CalibrationTokens | None, given: Windows | None, longest: int | None
) -> list[str]:
    notes: list[str] = []
    if calibration is not None:
        notes.append(calibration.line())
        if calibration.tokens.shape[1] < recipe.calibration.sequence_length:
            notes.append(f"calibration windows cut to {longest} tokens, the model's limit of positions")
    if given is not None and recipe.evaluation.perplexity is not None:
        count, length = given.tokens.shape
        notes.append(f"measuring over {count} of {given.available} windows of {length} tokens")
        if length < recipe.evaluation.perplexity.sequence_length:
            notes.append(f"evaluation windows cut to {length} tokens, the model's limit of positions")
    return notes
