"""Safetensors written shard by shard as tensors come, with fsync; same input, same bytes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from quantrecipe.errors import OutputError
from quantrecipe.modeling.folder import INDEX, SINGLE

SHARD_BYTES = 2 * 10**9


class ShardWriter:
    """Collects tensors and writes a shard whenever ``shard_bytes`` are full."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.shard_bytes = folder, shard_bytes
        self._held: dict[str, torch.Tensor] = {}
        self._held_bytes = 0
        self._shards: list[list[str]] = []
        self._total = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Queue one tensor; each name once."""
        if name in self._held or any(name in shard for shard in self._shards):
            raise OutputError("tensor written twice", value=name)
        self._held[name] = tensor.detach().to("cpu").contiguous()
        self._held_bytes += tensor.nbytes
        self._total += tensor.nbytes
        if self._held_bytes >= self.shard_bytes:
            self._flush()

    def _flush(self) -> None:
        path = self.folder / f"part-{len(self._shards):05d}.safetensors"
        try:
            save_file(self._held, path, metadata={"format": "pt"})
        except (SafetensorError, OSError) as error:
            raise _write_error(path, error) from error
        fsync(path)
        self._shards.append(sorted(self._held))
        self._held, self._held_bytes = {}, 0

    def close(self) -> None:
        """Write what is left, give the shards their final names and write the index."""
        if self._held or not self._shards:
            self._flush()
        count = len(self._shards)
        names = [SINGLE] if count == 1 else [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
        for index, name in enumerate(names):
            (self.folder / f"part-{index:05d}.safetensors").rename(self.folder / name)
        if count > 1:
            weight_map = {tensor: name for shard, name in zip(self._shards, names, strict=True) for tensor in shard}
            write_json(self.folder / INDEX, {"metadata": {"total_size": self._total}, "weight_map": weight_map})


def write_json(path: Path, data: Any) -> None:
    """JSON with sorted keys, flushed to the disk."""
    write_text(path, json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """A UTF-8 file, flushed to the disk."""
    try:
        path.write_text(text, encoding="utf-8")
        fsync(path)
    except OSError as error:
        raise _write_error(path, error) from error


def fsync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_error(path: Path, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or str(error)
    return OutputError("cannot write", value=str(path), limit=reason, remedy="free space or choose another output")
