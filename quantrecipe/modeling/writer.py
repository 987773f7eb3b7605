"""Safetensors written shard by shard as tensors come, with fsync; same input, same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quantrecipe.errors import OutputError
from quantrecipe.modeling import tensor_file
from quantrecipe.modeling.files import rename, write_file
from quantrecipe.modeling.folder import INDEX, SINGLE

SHARD_BYTES = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Shard:
    """A written shard: its tensors' names, sorted, and their bytes."""

    names: tuple[str, ...]
    nbytes: int


def part_name(index: int) -> str:
    """What a shard is called until their number is known."""
    return f"part-{index:05d}.safetensors"


class ShardWriter:
    """Collects tensors and writes a shard whenever ``shard_bytes`` are full.

    done: the shards that a stopped run has left in the folder; what lies in them is passed over when it is queued
    again. flushed: called with each shard that has been written, and its number.
    """

    def __init__(
        self,
        folder: Path,
        shard_bytes: int = SHARD_BYTES,
        done: Iterable[Shard] = (),
        flushed: Callable[[int, Shard], None] = lambda index, shard: None,
    ) -> None:
        self.folder, self.shard_bytes, self._flushed = folder, shard_bytes, flushed
        self._waiting: list[tensor_file.Piece] = []
        self._waiting_bytes = 0
        self._shards: list[Shard] = list(done)
        self._done = {name for shard in self._shards for name in shard.names}
        self._names: set[str] = set()

    @property
    def count(self) -> int:
        """Shards written so far."""
        return len(self._shards)

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Queue one tensor, held in memory until its shard is full; each name once."""
        self._queue(tensor_file.of_tensor(name, tensor))

    def copy(self, name: str, path: Path, name_there: str) -> None:
        """Queue a tensor of another safetensors file; it is never held in memory."""
        self._queue(tensor_file.of_stored(name, path, name_there))

    def _queue(self, piece: tensor_file.Piece) -> None:
        if piece.name in self._names:
            raise OutputError("tensor written twice", value=piece.name)
        self._names.add(piece.name)
        if piece.name in self._done:
            return
        self._waiting.append(piece)
        self._waiting_bytes += piece.nbytes
        if self._waiting_bytes >= self.shard_bytes:
            self._flush()

    def _flush(self) -> None:
        tensor_file.write_tensor_file(self.folder / part_name(self.count), self._waiting)
        names = tuple(sorted(piece.name for piece in self._waiting))
        self._shards.append(Shard(names, self._waiting_bytes))
        self._waiting, self._waiting_bytes = [], 0
        self._flushed(self.count - 1, self._shards[-1])

    def close(self) -> None:
        """Write what is left, give the shards their final names and write the index."""
        if self._waiting or not self._shards:
            self._flush()
        count = len(self._shards)
        names = [SINGLE] if count == 1 else [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
        for index, name in enumerate(names):
            rename(self.folder / part_name(index), self.folder / name)
        if count > 1:
            pairs = list(zip(self._shards, names, strict=True))
            weight_map = {tensor: name for shard, name in pairs for tensor in shard.names}
            total = sum(shard.nbytes for shard in self._shards)
            write_json(self.folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_json(path: Path, data: Any) -> None:
    """JSON with sorted keys, flushed to the disk."""
    write_text(path, json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """A UTF-8 file, flushed to the disk."""
    write_file(path, [text.encode()])
