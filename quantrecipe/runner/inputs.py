"""A model's files before any long work: shapes as the architecture has them, finite numbers, sane companions."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import ModelFolder, inside
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.units import format_bytes

#: Weights up to this size are read once for NaN and infinity (seconds); larger models' when each is quantized.
SCANNED = 4 * 10**9
MOST_COMPANION = 200 * 10**6
_COMPANIONS = ("*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja")


def check_inputs(skeleton: Skeleton) -> None:
    """Raises ModelError for the first tensor or file that would break the run later."""
    folder = skeleton.folder
    check_companions(folder.path)
    _check_shapes(skeleton)
    if folder.nbytes <= SCANNED:
        _check_finite(folder)


def check_companions(path: Path) -> None:
    """Tokenizer and config files: regular, inside the folder, no larger than a reader should take in."""
    for pattern in _COMPANIONS:
        for file in sorted(path.glob(pattern)):
            inside(path, file.name)
            if file.is_file() and file.stat().st_size > MOST_COMPANION and not file.name.endswith(".index.json"):
                size = format_bytes(file.stat().st_size)
                raise ModelError(
                    "file is too large", value=file.name, limit=f"{size}, at most {MOST_COMPANION} bytes"
                )


def _check_shapes(skeleton: Skeleton) -> None:
    """Of every parameter that one stored tensor fills; experts that are fused on load are seen then."""
    stored = skeleton.folder
    for name, module, attribute in skeleton.parameters_of(""):
        expected = module._parameters[attribute]
        try:
            found = stored.info(skeleton.stored_name(name))
        except ModelError:
            continue
        if expected is not None and expected.dim() < 3 and found.shape != tuple(expected.shape):
            raise ModelError(
                f"tensor {found.name} has the wrong shape",
                value=list(found.shape),
                limit=f"config.json means {list(expected.shape)}",
                remedy="config.json and weights are of different models",
            )


def _check_finite(folder: ModelFolder) -> None:
    for name in folder.names:
        info = folder.info(name)
        if not info.dtype.is_floating_point or not info.numel or info.dtype.itemsize < 2:
            continue
        if not all(math.isfinite(float(extreme)) for extreme in torch.aminmax(folder.mapped(name))):
            raise ModelError("a weight holds NaN or infinity", value=name, remedy="check the download")
