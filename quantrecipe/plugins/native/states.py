"""The hidden states between two blocks: in memory, or in files of the scratch folder, read by memory map."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence

import torch

from quantrecipe.modeling.files import NewFile
from quantrecipe.modeling.tensor_file import Piece, raw_bytes
from quantrecipe.plugins.native.scratch import Scratch, Stored
from quantrecipe.plugins.native.stages import Side

Run = Callable[[torch.Tensor], torch.Tensor]
Hidden = dict[Side, Sequence[torch.Tensor]]
WITNESS = "witness"
#: Saving hidden states may take one part in so many of the time between two savings.
LEAST_SHARE = 20


class States:
    """Carries hidden states from block to block. spill: they live in files, never more than a batch in memory."""

    def __init__(self, scratch: Scratch, device: str, spill: bool) -> None:
        self.scratch, self.device, self.spill = scratch, device, spill
        self._written: dict[str, str] = {}
        self._saved_at, self._cost = float("-inf"), 0.0

    def enter(self, side: Side, batches: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """The inputs of the first block."""
        return self._store(side, 0, lambda batch: batch, batches) if self.spill else batches

    def behind(self, side: Side, index: int, run: Run, inputs: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """What block ``index`` gives on ``inputs``."""
        if self.spill:
            return self._store(side, index + 1, run, inputs)
        return [run(batch) for batch in inputs]

    def _store(self, side: str, place: int, run: Run, inputs: Sequence[torch.Tensor]) -> Stored:
        """Each output is computed when its turn in the file comes; they are as large as their inputs."""
        name, self._written[side] = self.scratch.write_states(side, place, _computed(run, inputs))
        return Stored(self.scratch.folder / name, self.device)

    def save(self, place: int, hidden: Hidden, seen: list[torch.Tensor]) -> None:
        """Keep what a run needs to go on at block ``place``, unless that would take too much of its time."""
        began = time.perf_counter()
        if not self.spill and began - self._saved_at < LEAST_SHARE * self._cost:
            return
        written: dict[str, str] = {}
        for side, batches in (*hidden.items(), (WITNESS, seen)):
            if isinstance(batches, Stored):
                written[batches.path.name] = self._written[side]
            else:
                written.update([self.scratch.write_states(side, place, _computed(lambda batch: batch, batches))])
        self.scratch.journal_states(place, written)
        self._saved_at = time.perf_counter()
        self._cost = self._saved_at - began

    def resume(self, sides: Collection[Side], blocks: int) -> tuple[int, Hidden, list[torch.Tensor]]:
        """Where the run goes on, and the streams there; (0, {}, []) = from the beginning."""
        place, paths = self.scratch.states(blocks)
        if set(paths) != {*sides, WITNESS}:
            return 0, {}, []
        found = {side: Stored(paths[side], self.device) for side in sides}
        seen = [batch.clone() for batch in Stored(paths[WITNESS], self.device)]
        hidden: Hidden = {
            side: one if self.spill else [batch.clone() for batch in one] for side, one in found.items()
        }
        return place, hidden, seen


def _computed(run: Run, inputs: Sequence[torch.Tensor]) -> Iterator[Piece]:
    for index, batch in enumerate(inputs):

        def write(file: NewFile, batch: torch.Tensor = batch) -> None:
            file.write(raw_bytes(run(batch).cpu().contiguous()))

        yield Piece(f"{index:06d}", batch.dtype, tuple(batch.shape), write)
