"""Hidden states of many variants of one model between two blocks, in a file: one batch in memory at a time.

The file ``streams-00004.safetensors`` holds what enters block 4: of each stream one tensor a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from quantrecipe.modeling import files
from quantrecipe.modeling.files import NewFile
from quantrecipe.modeling.tensor_file import Piece, of_tensor, raw_bytes, read_header, write_tensor_file

#: Computes one batch [windows, length, hidden].
Compute = Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Streams:
    """The file in front of one block."""

    path: Path
    device: str

    @classmethod
    def write(cls, folder: Path, place: int, pieces: Iterable[Piece], device: str) -> tuple[Streams, str]:
        """Compute and write all pieces; the file, and its sha256."""
        path = folder / f"streams-{place:05d}.safetensors"
        digest = write_tensor_file(path, pieces)
        files.fsync(folder)
        return cls(path, device), digest

    def names(self) -> set[str]:
        """Names of the streams that have begun."""
        return {name.rpartition("/")[0] for name in read_header(self.path)}

    def batches(self, stream: str) -> list[torch.Tensor]:
        """All batches of a stream, in memory."""
        places = sorted(name for name in read_header(self.path) if name.rpartition("/")[0] == stream)
        with safe_open(self.path, framework="pt") as file:
            return [file.get_tensor(name).to(self.device) for name in places]

    def batch(self, stream: str, index: int, part: slice | None = None) -> torch.Tensor:
        """One batch of a stream, or those of its positions."""
        with safe_open(self.path, framework="pt") as file:
            if part is None:
                found: torch.Tensor = file.get_tensor(_key(stream, index))
            else:
                found = file.get_slice(_key(stream, index))[:, part.start : part.stop][:, :: part.step]
        return found.to(self.device)


def held(stream: str, batches: Sequence[torch.Tensor]) -> list[Piece]:
    """Pieces of batches that are in memory."""
    return [of_tensor(_key(stream, index), batch) for index, batch in enumerate(batches)]


def computed(stream: str, like: Sequence[torch.Tensor], compute: Callable[[int], torch.Tensor]) -> list[Piece]:
    """Pieces that are computed when their turn in the file comes; shaped as ``like``."""

    def piece(index: int, batch: torch.Tensor) -> Piece:
        def write(file: NewFile) -> None:
            file.write(raw_bytes(compute(index).cpu().contiguous()))

        return Piece(_key(stream, index), batch.dtype, tuple(batch.shape), write)

    return [piece(index, batch) for index, batch in enumerate(like)]


def _key(stream: str, index: int) -> str:
    return f"{stream}/{index:05d}"
