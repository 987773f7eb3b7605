"""Measures a saved checkpoint: what it lost against the original, and how large it is."""

from __future__ import annotations

from functools import partial
from typing import Any

from quantrecipe.modeling.adapter import ADAPTER, WEIGHTS, has_adapter
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.stream import compute_dtype
from quantrecipe.plugins.contract import Checkpoint, Progress
from quantrecipe.runner.cache import open_cache
from quantrecipe.runner.evaluate import Scoring
from quantrecipe.runner.kept_scores import KeptScores
from quantrecipe.runner.looks import Accepted, Subject
from quantrecipe.runner.preflight import Prepared
from quantrecipe.runner.scorers import Loaded, Scorer, Streamed
from quantrecipe.runner.served import Served

WEIGHT_FILES = (".safetensors", ".gguf", ".pt2")
READABLE = ("compressed-tensors", "gptq", "gptq_v2", "bitsandbytes", "quantrecipe")


def subject_of(
    prepared: Prepared,
    checkpoint: Checkpoint,
    progress: Progress,
    baseline: Accepted | None = None,
    kept: KeptScores | None = None,
) -> Subject | None:
    """The original and the saved checkpoint over the recipe's windows; None where it asks for none.

    kept: what a run that was stopped had scored.
    """
    evaluation, given = prepared.recipe.evaluation, prepared.windows
    if evaluation.perplexity is None or given is None:
        return None
    original = Streamed(prepared.skeleton, prepared.device)
    quantized = quantized_scorer(prepared, checkpoint)
    scoring = Scoring(evaluation.divergence, open_cache(prepared.folder), kept=kept)
    return Subject(original, quantized, given, evaluation.perplexity, scoring, progress, baseline)


def quantized_scorer(prepared: Prepared, checkpoint: Checkpoint) -> Scorer:
    """The saved checkpoint: streamed by a reader written apart from the writer, or loaded by its backend."""
    if _reads(checkpoint):
        from quantrecipe.runner.quantized import Rounded
        from quantrecipe.runner.serving import Service, stream

        dtype = compute_dtype(prepared.skeleton.dtype, prepared.device)
        return stream(checkpoint.path, Service(prepared.device, Rounded.of(prepared.plan), dtype))
    vocabulary = int(prepared.skeleton.model.config.get_text_config().vocab_size)
    model = prepared.backend.load(checkpoint.path, prepared.device)
    return Loaded(model, vocabulary, prepared.skeleton.dtype, prepared.device)


def served(prepared: Prepared, checkpoint: Checkpoint, trust_remote_code: bool) -> Served:
    """The saved checkpoint whole in memory: as codes where there is a reader for it, else as its backend loads it."""
    if not _reads(checkpoint):
        return Served(partial(prepared.backend.load, checkpoint.path, prepared.device))
    from quantrecipe.runner.quantized import Rounded
    from quantrecipe.runner.serving import Service, serve

    dtype = compute_dtype(prepared.skeleton.dtype, prepared.device)
    how = Service(prepared.device, Rounded.of(prepared.plan), dtype, trust_remote_code)
    return Served(partial(serve, checkpoint.path, how))


def _reads(checkpoint: Checkpoint) -> bool:
    return checkpoint.format in READABLE and not checkpoint.details.get("reads_alone")


def sizes(prepared: Prepared, checkpoint: Checkpoint) -> dict[str, Any]:
    """Bytes before and after, on disk; and the true bits of a quantized weight, scales and zero points included."""
    weights = sum(layer.rows * layer.columns for layer in checkpoint.layers)
    packed = sum(layer.bytes for layer in checkpoint.layers)
    before = _file_bytes(prepared.folder)
    after = sum(path.stat().st_size for path in checkpoint.path.iterdir() if path.suffix in WEIGHT_FILES)
    after += (checkpoint.path / ADAPTER / WEIGHTS).stat().st_size if has_adapter(checkpoint.path) else 0
    return {
        "original_file_bytes": before,
        "file_bytes": after,
        "quantized_weights": weights,
        "quantized_bytes": packed,
        "bits_per_weight": 8 * packed / weights if weights else None,
        "original_bits_per_weight": 8 * prepared.skeleton.dtype.itemsize,
    }


def _file_bytes(folder: ModelFolder) -> int:
    """Bytes of the weight files on disk, those of an adapter included."""
    files = [folder.path / name for name in folder.files()]
    files += [folder.path / ADAPTER / WEIGHTS] if has_adapter(folder.path) else []
    return sum(file.stat().st_size for file in files)
