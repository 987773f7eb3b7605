"""What a training run has reached, in a folder that outlives it: a journal, the latest state, the result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from quantrecipe.modeling import files
from quantrecipe.modeling.folder import sha256_file
from quantrecipe.modeling.journal import Journal
from quantrecipe.modeling.tensor_file import of_tensor, write_tensor_file

#: Seconds between two savings at the least; saving may take one part in so many of the time between.
EVERY, LEAST_SHARE = 30.0, 20
LEARNED = "learned.safetensors"


class States:
    """One training's. learned: the journal's line once all is learned and its file is whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = files.make_folder(folder)
        self.journal = Journal(self.folder)
        line = self.journal.last("learned")
        self.learned = line if line is not None and self._is_whole(line) else None
        self._saved_at, self._cost = time.perf_counter(), 0.0

    def close(self) -> None:
        """Let the journal go."""
        self.journal.close()

    def save(self, step: int, tensors: Mapping[str, torch.Tensor], more: dict[str, Any]) -> None:
        """Keep what the run needs to go on behind ``step`` steps, unless the last saving was just now."""
        began = time.perf_counter()
        if began - self._saved_at < max(EVERY, LEAST_SHARE * self._cost):
            return
        self._keep("step", f"step-{step:08d}.safetensors", tensors, step=step, **more)
        for path in self.folder.glob("step-*.safetensors"):
            if path.name != self.journal.lines[-1]["file"]:
                files.remove(path)
        self._saved_at = time.perf_counter()
        self._cost = self._saved_at - began

    def latest(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]] | None:
        """What ``save`` last kept; None = from the beginning."""
        line = self.journal.last("step")
        return (line, load_file(self.folder / line["file"])) if line is not None and self._is_whole(line) else None

    def keep_learned(self, tensors: Mapping[str, torch.Tensor], note: str) -> None:
        """Keep the result; states on the way are removed."""
        self._keep("learned", LEARNED, tensors, note=note)
        for path in self.folder.glob("step-*.safetensors"):
            files.remove(path)

    def read_learned(self) -> tuple[dict[str, torch.Tensor], str]:
        """The result, and what is to be said of it."""
        return load_file(self.folder / LEARNED), str(self.journal.of("learned")[-1]["note"])

    def _keep(self, kind: str, name: str, tensors: Mapping[str, torch.Tensor], **more: Any) -> None:
        written = write_tensor_file(self.folder / name, (of_tensor(*item) for item in tensors.items()))
        files.fsync(self.folder)
        self.journal.add(kind, file=name, sha256=written, **more)

    def _is_whole(self, line: dict[str, Any]) -> bool:
        path = self.folder / line["file"]
        return path.is_file() and bool(sha256_file(path) == line["sha256"])
