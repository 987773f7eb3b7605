"""A model folder: config.json and safetensors, checked before anything is read from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from quantrecipe.errors import ModelError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One stored tensor: its file, dtype and shape."""

    name: str
    file: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return prod(self.shape) * self.dtype.itemsize


class ModelFolder:
    """The weights of a folder by name, read by memory map.

    Raises ModelError where the config, the index or a shard is missing, damaged or points outside.
    """

    def __init__(self, path: Path, config: dict[str, Any], tensors: dict[str, TensorInfo]) -> None:
        self.path, self.config, self._tensors = path, config, tensors

    @classmethod
    def open(cls, path: str | Path) -> ModelFolder:
        """Read config.json and the header of every shard; no weights yet."""
        folder = Path(path)
        if not folder.is_dir():
            raise ModelError("no model folder", value=str(path), remedy="give a folder with config.json")
        config = _read_json(folder / "config.json")
        tensors: dict[str, TensorInfo] = {}
        for file in _shard_names(folder):
            for info in _headers(folder / file):
                tensors[info.name] = info
        _check_index(folder, tensors)
        return cls(folder, config, tensors)

    @property
    def names(self) -> list[str]:
        """Names of all stored tensors, sorted."""
        return sorted(self._tensors)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def info(self, name: str) -> TensorInfo:
        """Where and what a tensor is, without reading it."""
        if name not in self._tensors:
            raise ModelError("tensor missing from the checkpoint", value=name, limit=str(self.path))
        return self._tensors[name]

    def tensor(self, name: str) -> torch.Tensor:
        """A copy of one tensor on the CPU."""
        info = self.info(name)
        with safe_open(self.path / info.file, framework="pt") as shard:
            tensor: torch.Tensor = shard.get_tensor(name)
        return tensor

    def files(self) -> list[str]:
        """Names of the shards, sorted."""
        return sorted({info.file for info in self._tensors.values()})

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.nbytes for info in self._tensors.values())

    def hashes(self) -> dict[str, str]:
        """sha256 of config.json and of every shard, by file name."""
        return {name: sha256_file(self.path / name) for name in ["config.json", *self.files()]}


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError("file missing from the model folder", value=str(path)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError("file cannot be read", value=str(path), limit=str(error)) from error
    if not isinstance(data, dict):
        raise ModelError("file is not a JSON object", value=str(path))
    return data


def _shard_names(folder: Path) -> list[str]:
    """The safetensors files that make up the model; none may lie outside the folder."""
    if (folder / INDEX).exists():
        weight_map = _read_json(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError("the index has no weight_map", value=str(folder / INDEX))
        return sorted({_inside(folder, name) for name in weight_map.values()})
    if (folder / SINGLE).exists():
        return [SINGLE]
    others = sorted(path.name for path in folder.glob("*.bin")) or sorted(p.name for p in folder.glob("*.pt"))
    if others:
        raise ModelError(
            "the weights are pickles, which can run code when opened",
            value=others[0],
            remedy="convert them to safetensors (transformers: save_pretrained) and try again",
        )
    raise ModelError("the folder has a config but no weights", value=str(folder), limit=f"{SINGLE} or {INDEX}")


def _inside(folder: Path, name: Any) -> str:
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
        raise ModelError("the index names a file outside the model folder", value=name, limit="plain file names")
    return name


def _headers(path: Path) -> Iterator[TensorInfo]:
    """Every tensor in a shard's header; safetensors checks offsets and length against the file."""
    try:
        with safe_open(path, framework="pt") as shard:
            for name in shard.keys():  # noqa: SIM118 - a safe_open handle is no mapping
                part = shard.get_slice(name)
                yield TensorInfo(name, path.name, _dtype(part.get_dtype(), name), tuple(part.get_shape()))
    except FileNotFoundError as error:
        raise ModelError(
            "shard missing", value=path.name, limit=str(path.parent), remedy="download it again"
        ) from error
    except (SafetensorError, OSError) as error:
        raise ModelError(
            "shard truncated or damaged", value=path.name, limit=str(error), remedy="download it again"
        ) from error


def _dtype(name: str, tensor: str) -> torch.dtype:
    if name not in DTYPES:
        raise ModelError(f"tensor {tensor} has a dtype that is not supported", value=name, limit=", ".join(DTYPES))
    return DTYPES[name]


def _check_index(folder: Path, tensors: dict[str, TensorInfo]) -> None:
    """Every tensor that the index promises must be in the shard that it names."""
    if not (folder / INDEX).exists():
        return
    for name, file in _read_json(folder / INDEX)["weight_map"].items():
        if name not in tensors or tensors[name].file != file:
            raise ModelError("tensor missing from its shard", value=name, limit=f"the index says {file}")
