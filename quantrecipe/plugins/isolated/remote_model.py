"""A checkpoint that its own library has reloaded in a fresh process, as a module that gives logits."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from quantrecipe.plugins.contract import Progress
from quantrecipe.plugins.isolated.process import Worker


class RemoteModel(nn.Module):
    """Forward passes and dequantized weights, asked of a worker that holds the model; tensors travel as files."""

    def __init__(self, worker: Worker, progress: Progress) -> None:
        super().__init__()
        self._worker, self._progress = worker, progress
        self._scratch = tempfile.TemporaryDirectory(prefix="quantrecipe-worker-")
        self.dtype = getattr(torch, worker.wait("ready", progress)["dtype"])

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        """``.logits`` [batch, tokens, vocabulary] of int64 tokens [batch, tokens]."""
        folder = Path(self._scratch.name)
        save_file({"tokens": input_ids.cpu().contiguous()}, folder / "tokens.safetensors")
        return SimpleNamespace(logits=self._answer("logits", tokens=str(folder / "tokens.safetensors")))

    def weight(self, name: str, columns: int) -> torch.Tensor:
        """The weight [N, K] that the named module computes with; columns is K."""
        return self._answer("weight", module=name, columns=columns)

    def _answer(self, want: str, **request: Any) -> torch.Tensor:
        path = Path(self._scratch.name) / "answer.safetensors"
        self._worker.ask({"want": want, "answer": str(path), **request}, self._progress)
        found = load_file(path)[want]
        path.unlink()
        return found

    def close(self) -> None:
        """End the worker and drop its files."""
        self._worker.close()
        self._scratch.cleanup()
