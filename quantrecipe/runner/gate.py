"""An existing checkpoint of any known format judged by a recipe's gates; nothing is quantized."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from quantrecipe.errors import DamageError, QuantRecipeError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.modeling.stream import compute_dtype
from quantrecipe.plugins.contract import Progress
from quantrecipe.recipe import Recipe
from quantrecipe.runner.appraise import Appraisal, Order, appraise, with_peak
from quantrecipe.runner.baseline import StoredBaseline
from quantrecipe.runner.cache import open_cache
from quantrecipe.runner.evaluate import Scoring, evaluation_windows
from quantrecipe.runner.foreign import compared_layers, quantized_bytes, scorer_of
from quantrecipe.runner.gates import Evidence
from quantrecipe.runner.integrity import verify_folder
from quantrecipe.runner.judge import Unsure, exit_code
from quantrecipe.runner.locate import find
from quantrecipe.runner.looks import Subject
from quantrecipe.runner.meter import Meter
from quantrecipe.runner.preflight import choose_device, position_limit
from quantrecipe.runner.results import gated
from quantrecipe.runner.scorers import Streamed
from quantrecipe.runner.served import Served
from quantrecipe.runner.serving import Service, servable, serve
from quantrecipe.runner.tasks import check_tasks
from quantrecipe.runner.tokens import load_tokenizer


@dataclass(frozen=True, slots=True)
class Judged:
    """The outcome: 0 passes, 1 fails, 2 could not be judged; and what results.json holds."""

    exit_code: int
    results: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What to judge. recipe_file: where its gates stand, for annotations."""

    folder: Path
    recipe: Recipe
    unsure: Unsure = "extend"
    baseline: StoredBaseline | None = None
    device: str | None = None
    trust_remote_code: bool = False
    recipe_file: dict[str, Any] | None = None
    command: str | None = None


@dataclass(slots=True)
class Gating:
    """One judgement under way."""

    request: Request
    original: ModelFolder
    skeleton: Skeleton
    device: str
    progress: Progress
    meter: Meter
    notes: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        """Say it now and in the report."""
        self.notes.append(line)
        self.progress.note(line)

    @property
    def dtype(self) -> torch.dtype:
        """What both models compute in."""
        return compute_dtype(self.skeleton.dtype, self.device)


def gate(request: Request, progress: Progress) -> Judged:
    """Check, measure, judge. Raises QuantRecipeError where it cannot be done at all."""
    check_tasks(request.recipe)
    progress.start("resolve")
    original = ModelFolder.open(find(request.recipe.model.id, request.recipe.model.revision))
    skeleton = Skeleton(original, request.trust_remote_code)
    run = Gating(request, original, skeleton, choose_device(request.device), progress, Meter())
    progress.start("verify")
    began = time.perf_counter()
    report = verify_folder(request.folder, str(original.path), request.trust_remote_code)
    run.meter.add("verify", time.perf_counter() - began, None)
    found = _appraise(run, tuple(report.faults), tuple(report.suspects))
    damaged = bool(found.trial.evidence.faults)
    stored = None if damaged else ModelFolder.open(request.folder)
    layers = [] if stored is None else compared_layers(stored, skeleton)
    size = _sizes(run, stored)
    results = gated(run, found, size, layers, report)
    return Judged(exit_code(found.gates, request.unsure), results)


def _appraise(run: Gating, faults: tuple[str, ...], doubts: tuple[str, ...]) -> Appraisal:
    """Measure a sound checkpoint; a damaged one is not loaded."""
    recipe, request = run.request.recipe, run.request
    tokenizer = load_tokenizer(run.original.path, request.trust_remote_code)
    order = Order(recipe, tokenizer, None, request.unsure)
    kinds = ("perplexity", "divergence", "baseline", "speed", "tasks")
    damaged = dict.fromkeys(kinds, "not measured: the checkpoint is damaged")
    if faults:
        return appraise(order, Evidence(faults=faults, missing=damaged))
    size = _sizes(run, ModelFolder.open(request.folder))
    evidence = Evidence((), doubts, file_bytes=size["file_bytes"], bits_per_weight=size["bits_per_weight"])
    try:
        with run.meter.stage("evaluate"):
            subject = _subject(run, tokenizer)
            serving = _served(run)
            order = Order(recipe, tokenizer, subject, request.unsure, serving)
            found = appraise(order, evidence)
    except DamageError as error:
        return appraise(Order(recipe, tokenizer, None), Evidence(faults=(error.line(),), missing=damaged))
    return with_peak(found, recipe, run.meter.peak)


def _subject(run: Gating, tokenizer: Any) -> Subject | None:
    evaluation = run.request.recipe.evaluation
    if evaluation.perplexity is None:
        return None
    original = Streamed(run.skeleton, run.device)
    quantized = scorer_of(run.request.folder, run.device, run.dtype, run.request.trust_remote_code, run.note)
    if quantized.vocabulary != original.vocabulary:
        raise QuantRecipeError(
            "the checkpoint has another vocabulary than the original",
            value=quantized.vocabulary,
            limit=f"{original.vocabulary} tokens",
            remedy="name the model that it was made from in the recipe",
        )
    given = evaluation_windows(evaluation.perplexity, tokenizer, position_limit(run.skeleton))
    scoring = Scoring(evaluation.divergence, open_cache(run.original))
    return Subject(original, quantized, given, evaluation.perplexity, scoring, run.progress, run.request.baseline)


def _served(run: Gating) -> Served:
    """The checkpoint whole in memory: as codes where there is a reader for it, else as transformers serves it."""
    folder, trusted = run.request.folder, run.request.trust_remote_code
    if not servable(folder):
        return Served(partial(_by_transformers, folder, run.device, trusted))
    return Served(partial(serve, folder, Service(run.device, None, run.dtype, trusted)))


def _by_transformers(folder: Path, device: str, trust_remote_code: bool) -> Any:
    import transformers

    factory: Any = transformers.AutoModelForCausalLM
    model = factory.from_pretrained(folder, dtype="auto", local_files_only=True, trust_remote_code=trust_remote_code)
    return model.to(device).eval()


def _sizes(run: Gating, stored: ModelFolder | None) -> dict[str, Any]:
    weights, packed = (0, 0) if stored is None else quantized_bytes(stored)
    return {
        "original_file_bytes": _file_bytes(run.original),
        "file_bytes": 0 if stored is None else _file_bytes(stored),
        "quantized_weights": weights,
        "quantized_bytes": packed,
        "bits_per_weight": 8 * packed / weights if weights else None,
        "original_bits_per_weight": 8 * run.skeleton.dtype.itemsize,
    }


def _file_bytes(folder: ModelFolder) -> int:
    return sum((folder.path / name).stat().st_size for name in folder.files())
