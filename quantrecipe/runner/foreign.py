"""A quantized checkpoint that this run did not write: its weights against the original's, and its logits."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from quantrecipe.errors import DamageError, ModelError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import READERS, method_of, quantization_config, reader_of
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.runner.scorers import Loaded, Scorer
from quantrecipe.runner.serving import Service, stream


def scorer_of(
    folder: Path,
    device: str,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> Scorer:
    """Streamed through a reader of the format; loaded whole by transformers where there is no reader for it.

    note: takes a line for what the checkpoint claims and that is not scored.
    """
    stored = ModelFolder.open(folder)
    if method_of(quantization_config(stored.config, folder)) not in READERS:
        return _loaded(folder, device, dtype, trust_remote_code)
    return stream(folder, Service(device, None, dtype, trust_remote_code, note))


def _loaded(folder: Path, device: str, dtype: torch.dtype, trust_remote_code: bool) -> Loaded:
    import transformers

    factory: Any = transformers.AutoModelForCausalLM
    try:
        model = factory.from_pretrained(
            folder, dtype=dtype, local_files_only=True, trust_remote_code=trust_remote_code
        ).to(device)
    except Exception as error:  # the library raises errors of many kinds
        raise DamageError(
            "transformers cannot load the checkpoint",
            value=str(folder),
            limit=f"{type(error).__name__}: {error}"[:300],
        ) from error
    return Loaded(model, int(model.config.get_text_config().vocab_size), dtype, device)


def quantized_bytes(stored: ModelFolder) -> tuple[int, int]:
    """Weights that are stored as codes, and the bytes that stand for them; zeros where there is no reader."""
    try:
        reader = reader_of(stored)
    except ModelError:
        return 0, 0
    modules = reader.modules(stored)
    shapes = [reader.shape(stored, module) for module in modules]
    return sum(rows * columns for rows, columns in shapes), sum(reader.nbytes(stored, module) for module in modules)


def compared_layers(stored: ModelFolder, original: Skeleton) -> list[dict[str, Any]]:
    """Each quantized module's weight against the original's, as the layers of results.json; none without a reader."""
    try:
        reader = reader_of(stored)
    except ModelError:
        return []
    names = {name: info for info in original.linears() for name in info.names}
    found = []
    for module in reader.modules(stored):
        info = names.get(module)
        if info is None:
            continue
        began = time.perf_counter()
        weight = original.read(f"{info.name}.weight").float()
        weight = weight.t() if info.kind == "Conv1D" else weight
        error = torch.linalg.norm(weight - reader.decode(stored, module).weight(torch.float32))
        rows, columns = reader.shape(stored, module)
        nbytes = reader.nbytes(stored, module)
        found.append(
            {
                "name": info.name,
                "scheme": f"{8 * nbytes / (rows * columns):.3g} bits",
                "method": reader.name,
                "rows": rows,
                "columns": columns,
                "bytes": nbytes,
                "relative_error": float(error / torch.linalg.norm(weight)),
                "output_error": None,
                "digest": "",
                "seconds": round(time.perf_counter() - began, 3),
                "note": None,
                "tokens": None,
            }
        )
    return found


def format_name(folder: Path) -> str:
    """The format that a checkpoint's config claims; ``none`` where it claims none, or ``unreadable``."""
    try:
        stored = ModelFolder.open(folder)
    except ModelError:
        return "unreadable"
    return method_of(quantization_config(stored.config, folder))
