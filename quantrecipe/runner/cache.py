"""What was measured on the original model, kept between runs so that a job measures it once.

An entry is a safetensors file: per-token losses of some windows, or the last block's outputs, from which the
head makes logits again. Its name is the sha256 of all that the numbers depend on. The folder is bounded: what
was not used for longest goes first.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from quantrecipe.errors import QuantRecipeError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.plugins.contract import Progress
from quantrecipe.runner.environment import environment
from quantrecipe.runner.ledger import Pass
from quantrecipe.runner.scorers import Scorer, Streamed, batch_size
from quantrecipe.units import parse_bytes
from quantrecipe.user_cache import cache_folder

SIZE = "QUANTRECIPE_CACHE_SIZE"
DEFAULT_SIZE = "5GB"


@dataclass(slots=True)
class OriginalCache:
    """The entries of one original model.

    model: sha256 over its files' hashes, head and config among them. limit: bytes that the folder may hold.
    hits: what was found, in the order asked for.
    """

    folder: Path
    model: str
    limit: int
    hits: list[str] = field(default_factory=list)

    def losses(self, scorer: Scorer, tokens: torch.Tensor) -> torch.Tensor | None:
        """Per-token losses fp32 [windows, counted], where they are known."""
        found = self._read("losses", scorer, tokens)
        return None if found is None else found["losses"]

    def keep_losses(self, scorer: Scorer, tokens: torch.Tensor, losses: torch.Tensor) -> None:
        """Keep them."""
        self._write(self._path("losses", scorer, tokens), {"losses": losses.contiguous()})

    def hidden(self, scorer: Scorer, tokens: torch.Tensor) -> list[torch.Tensor] | None:
        """The last block's outputs a batch, where they are known."""
        found = self._read("hidden", scorer, tokens)
        return None if found is None else [found[str(number)] for number in range(len(found))]

    def keep_hidden(self, scorer: Scorer, tokens: torch.Tensor, hidden: list[torch.Tensor]) -> None:
        """Keep them."""
        tensors = {str(number): batch.cpu().contiguous() for number, batch in enumerate(hidden)}
        self._write(self._path("hidden", scorer, tokens), tensors)

    def _path(self, kind: str, scorer: Scorer, tokens: torch.Tensor) -> Path:
        device = str(getattr(scorer, "device", "cpu"))
        parts = {
            "kind": kind,
            "model": self.model,
            "tokens": hashlib.sha256(tokens.contiguous().numpy().tobytes()).hexdigest(),
            "shape": list(tokens.shape),
            "batch": batch_size(tokens.shape[1]),
            "dtype": str(scorer.dtype),
            "environment": environment(device),
        }
        return self.folder / f"{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()}.safetensors"

    def _read(self, kind: str, scorer: Scorer, tokens: torch.Tensor) -> dict[str, torch.Tensor] | None:
        path = self._path(kind, scorer, tokens)
        try:
            found = load_file(path)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError):
            path.unlink(missing_ok=True)
            return None
        self.hits.append(kind)
        return found

    def _write(self, path: Path, tensors: dict[str, torch.Tensor]) -> None:
        """Whole or not at all; a cache that cannot be written is no error."""
        size = sum(tensor.nbytes for tensor in tensors.values())
        if size > self.limit:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(size)
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".partial")
            os.close(handle)
            save_file(tensors, name)
            Path(name).replace(path)
        except (OSError, SafetensorError):
            return

    def _make_room(self, size: int) -> None:
        """Remove what was used longest ago until ``size`` more bytes fit."""
        entries = [(path.stat().st_mtime, path.stat().st_size, path) for path in self.folder.glob("*.safetensors")]
        held = sum(entry[1] for entry in entries)
        for _, taken, path in sorted(entries):
            if held + size <= self.limit:
                return
            path.unlink(missing_ok=True)
            held -= taken


def open_cache(model: ModelFolder) -> OriginalCache | None:
    """The cache for a model, in ``QUANTRECIPE_CACHE`` or XDG's; None where that says ``off``."""
    base = cache_folder()
    if base is None:
        return None
    try:
        limit = parse_bytes(os.environ.get(SIZE, DEFAULT_SIZE))
    except QuantRecipeError as error:
        raise QuantRecipeError(f"{SIZE} is no size", value=os.environ[SIZE], remedy="such as 5GB") from error
    digest = hashlib.sha256(json.dumps(model.hashes(), sort_keys=True).encode()).hexdigest()
    return OriginalCache(base / "original", digest, int(limit))


def take_in(
    scorer: Scorer, tokens: torch.Tensor, progress: Progress, cache: OriginalCache | None, kept: Pass | None = None
) -> None:
    """Let the scorer take the windows in, from kept hidden states where there are any."""
    if not isinstance(scorer, Streamed):
        scorer.run(tokens, progress)
        return
    held = None if cache is None else cache.hidden(scorer, tokens)
    if held is not None:
        scorer.restore(tokens, held)
        return
    scorer.run(tokens, progress, kept)
    if cache is not None:
        cache.keep_hidden(scorer, tokens, scorer.hidden)
