"""What a run has finished, kept in its scratch folder so that a killed one goes on.

journal                        one line a finished block, one a saved set of hidden states
block-00003.safetensors        the block's tensors as the checkpoint holds them
block-00003.beside.safetensors the compensation's tensors, and (of the last) the witness's logits
quantized-00004.safetensors    hidden states in front of block 4, a tensor a batch; likewise original, witness
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from quantrecipe.errors import OutputError
from quantrecipe.modeling import files
from quantrecipe.modeling.folder import sha256_file
from quantrecipe.modeling.journal import Journal
from quantrecipe.modeling.tensor_file import Piece, of_tensor, read_header, write_tensor_file
from quantrecipe.plugins.contract import LayerRecord
from quantrecipe.plugins.native.block import Artefact

WITNESS = "witness.logits"


@dataclass(frozen=True, slots=True)
class Kept:
    """An artefact on the disk. path: its tensors. beside: the compensation's and the witness's, if any."""

    place: int
    path: Path
    beside: Path | None
    replaced: tuple[str, ...]
    changed: dict[str, str]
    records: tuple[LayerRecord, ...]
    notes: tuple[str, ...]

    def names(self) -> list[str]:
        """Names of its tensors, in the file's order."""
        return list(read_header(self.path))

    def beside_tensors(self) -> dict[str, torch.Tensor]:
        """The compensation's tensors."""
        found = {} if self.beside is None else load_file(self.beside)
        return {name: tensor for name, tensor in found.items() if name != WITNESS}

    def witness_logits(self) -> torch.Tensor | None:
        """fp32 [sequences, length, vocabulary]."""
        return None if self.beside is None else load_file(self.beside).get(WITNESS)


def check_facts(journal: Journal, facts: Mapping[str, str]) -> None:
    """Journal what this backend goes by; raises OutputError where a stopped run went by something else."""
    begun = journal.last("native")
    if begun is None:
        journal.add("native", facts=dict(facts))
    elif begun["facts"] != dict(facts):
        changed = sorted(key for key in {*facts, *begun["facts"]} if begun["facts"].get(key) != facts.get(key))
        raise OutputError(
            "a run that was stopped here had another setting",
            value=", ".join(changed),
            remedy="start anew with --overwrite",
        )


class Scratch:
    """One scratch folder. facts: what a run that goes on must have in common with the one that began."""

    def __init__(self, folder: Path, facts: Mapping[str, str]) -> None:
        self.folder = files.make_folder(folder)
        self.journal = Journal(self.folder)
        check_facts(self.journal, facts)
        self._kept = self._whole_artefacts()

    def close(self) -> None:
        """Let the journal go."""
        self.journal.close()

    def artefact(self, place: int) -> Kept | None:
        """What block ``place`` has left (their number: what lies outside them), if it is there and whole."""
        return self._kept.get(place)

    def keep(self, place: int, artefact: Artefact) -> Kept:
        """Write an artefact and journal it."""
        path = self.folder / f"block-{place:05d}.safetensors"
        written = {path.name: write_tensor_file(path, (of_tensor(*item) for item in artefact.tensors.items()))}
        others = artefact.beside | ({} if artefact.witness is None else {WITNESS: artefact.witness})
        if others:
            beside = self.folder / f"block-{place:05d}.beside.safetensors"
            written[beside.name] = write_tensor_file(beside, (of_tensor(*item) for item in others.items()))
        files.fsync(self.folder)
        self.journal.add(
            "block" if artefact.witness is None else "rest",
            place=place,
            files=written,
            replaced=artefact.replaced,
            changed=artefact.changed,
            records=[asdict(record) for record in artefact.records],
            notes=artefact.notes,
        )
        self._kept[place] = self._kept_of(self.journal.lines[-1])
        return self._kept[place]

    def _whole_artefacts(self) -> dict[int, Kept]:
        """The last journaled artefact of each place whose files are what was journaled."""
        lines = {line["place"]: line for line in (*self.journal.of("block"), *self.journal.of("rest"))}
        return {place: self._kept_of(line) for place, line in lines.items() if self._is_whole(line["files"])}

    def _kept_of(self, line: dict[str, Any]) -> Kept:
        first, *second = (self.folder / name for name in sorted(line["files"], key=len))
        records = tuple(LayerRecord(**record) for record in line["records"])
        replaced, notes = tuple(line["replaced"]), tuple(line["notes"])
        return Kept(line["place"], first, second[0] if second else None, replaced, line["changed"], records, notes)

    def _is_whole(self, written: Mapping[str, str]) -> bool:
        paths = {self.folder / name: digest for name, digest in written.items()}
        return all(path.is_file() and sha256_file(path) == digest for path, digest in paths.items())

    def write_states(self, side: str, place: int, pieces: Iterable[Piece]) -> tuple[str, str]:
        """Write one stream's hidden states in front of block ``place``: the file's name and sha256."""
        path = self.folder / f"{side}-{place:05d}.safetensors"
        return path.name, write_tensor_file(path, pieces)

    def journal_states(self, place: int, written: Mapping[str, str]) -> None:
        """Say that all streams in front of block ``place`` are saved; older ones are removed."""
        files.fsync(self.folder)
        self.journal.add("states", place=place, files=dict(written))
        for path in self.folder.glob("*-?????.safetensors"):
            if not path.name.startswith("block-") and path.name not in written:
                files.remove(path)

    def states(self, blocks: int) -> tuple[int, dict[str, Path]]:
        """Where a run goes on: the block, and each stream's file in front of it. (0, {}) = from the beginning."""
        last = self.journal.last("states")
        if last is None or not self._is_whole(last["files"]):
            return 0, {}
        if any(place not in self._kept for place in range(min(last["place"], blocks))):
            return 0, {}
        return last["place"], {name.rpartition("-")[0]: self.folder / name for name in last["files"]}


class Stored(Sequence[torch.Tensor]):
    """Hidden states in a file, read by memory map, one batch at a time."""

    def __init__(self, path: Path, device: str) -> None:
        self.path, self.device = path, device
        self._names = sorted(read_header(path))

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with safe_open(self.path, framework="pt") as file:
            return file.get_tensor(self._names[index]).to(self.device)
