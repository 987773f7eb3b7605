"""What a run has found since its checkpoint was whole, kept in its scratch folder so that a killed one goes on.

Lines ``found`` of the journal, each with what it is about, plain data, the sha256 of a file of tensors beside it
where there is one, and of the checkpoint's provenance: what was found of another checkpoint counts for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from quantrecipe.modeling import files
from quantrecipe.modeling.folder import sha256_file
from quantrecipe.modeling.journal import Journal
from quantrecipe.modeling.tensor_file import of_tensor, write_tensor_file

FOUND = "found"
#: Keeping a pass's hidden states may take one part in so many of the time since they were last kept, and is not
#: worth while more often than every so many seconds.
LEAST_SHARE, LEAST_SECONDS = 20, 10.0


class Ledger:
    """The findings about one checkpoint. mark: sha256 of its provenance."""

    def __init__(self, scratch: Path, mark: str) -> None:
        self.folder, self.mark = scratch, mark
        self._journal = Journal(scratch)
        lines = [line for line in self._journal.of(FOUND) if line.get("mark") == mark and _is_ours(line)]
        self._lines: dict[str, dict[str, Any]] = {line["what"]: line for line in lines}

    def close(self) -> None:
        """Let the journal go."""
        self._journal.close()

    def data(self, what: str) -> Any | None:
        """The data kept last under that name; None where there are none."""
        return self._lines.get(what, {}).get("data")

    def tensors(self, what: str) -> dict[str, torch.Tensor] | None:
        """The tensors kept last under that name; None where there are none, or not whole."""
        written: dict[str, str] | None = self._lines.get(what, {}).get("file")
        if written is None:
            return None
        ((name, digest),) = written.items()
        path = self.folder / name
        return load_file(path) if path.is_file() and sha256_file(path) == digest else None

    def keep(self, what: str, data: Any, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
        """Keep plain data, and tensors in a file of that name, instead of what was kept under it."""
        written = None
        if tensors is not None:
            path = self.folder / f"{what}-{len(self._journal.lines):06d}.safetensors"
            written = {path.name: write_tensor_file(path, (of_tensor(*item) for item in tensors.items()))}
            files.fsync(self.folder)
        before = self._lines.get(what, {}).get("file") or {}
        self._journal.add(FOUND, what=what, mark=self.mark, data=data, file=written)
        self._lines[what] = self._journal.lines[-1]
        for name in before:
            files.remove(self.folder / name)

    def once(self, what: str, work: Callable[[], Any]) -> Any:
        """What ``work`` finds, as plain data; a run that goes on does not do it again."""
        if what not in self._lines:
            self.keep(what, work())
        return self.data(what)


def _is_ours(line: Mapping[str, Any]) -> bool:
    """Whether a line is as ``keep`` writes it; above all, names a file in the folder itself or none."""
    what, written = line.get("what"), line.get("file")
    if not isinstance(what, str) or not isinstance(written, dict | None):
        return False
    plain = all(Path(name).name == name and name.endswith(".safetensors") for name in written or ())
    return written is None or (len(written) == 1 and plain)


class Pass:
    """The hidden states of one model on its way over some windows, kept now and then.

    name: of the pass; the last one alone is kept under it. over: what tells these windows from others.
    """

    def __init__(self, ledger: Ledger, name: str, over: str) -> None:
        self._ledger, self._name, self._over = ledger, name, over
        self._kept_at, self._cost = time.perf_counter(), 0.0

    def resume(self) -> tuple[int, list[torch.Tensor]] | None:
        """The block that a stopped run had come to, and each batch in front of it."""
        told = self._ledger.data(self._name)
        if told is None or told["over"] != self._over:
            return None
        held = self._ledger.tensors(self._name)
        return None if held is None else (int(told["place"]), [held[name].clone() for name in sorted(held)])

    def keep(self, place: int, hidden: list[torch.Tensor]) -> None:
        """The states in front of block ``place``, unless that would take too much of the time."""
        began = time.perf_counter()
        if began - self._kept_at < max(LEAST_SHARE * self._cost, LEAST_SECONDS):
            return
        held = {f"{number:06d}": batch for number, batch in enumerate(hidden)}
        self._ledger.keep(self._name, {"place": place, "over": self._over}, held)
        self._kept_at = time.perf_counter()
        self._cost = self._kept_at - began
