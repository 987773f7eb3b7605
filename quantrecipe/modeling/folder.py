"""A model folder: config.json and safetensors, checked before anything is read from it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from quantrecipe.errors import ModelError
from quantrecipe.safe_json import read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
#: Bytes read from a mapped shard before it is opened anew: pages that were read count as resident until then.
MAPPED_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One stored tensor: its file, dtype and shape."""

    name: str
    file: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of its elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return self.numel * self.dtype.itemsize


@dataclass(slots=True)
class _Opened:
    """A mapped shard, and how much was read from it."""

    file: str
    shard: Any
    read: int = 0


class ModelFolder:
    """The weights of a folder by name, read by memory map.

    Raises ModelError where the config, the index or a shard is missing, damaged or points outside.
    """

    def __init__(self, path: Path, config: dict[str, Any], tensors: dict[str, TensorInfo]) -> None:
        self.path, self.config, self._tensors = path, config, tensors
        self._opened = threading.local()

    @classmethod
    def open(cls, path: str | Path) -> ModelFolder:
        """Read config.json and the header of every shard; no weights yet."""
        folder = Path(path)
        if not folder.is_dir():
            raise ModelError("no model folder", value=str(path), remedy="give a folder with config.json")
        config = read_json(folder / inside(folder, "config.json"))
        index = _read_index(folder)
        tensors: dict[str, TensorInfo] = {}
        for file in _shard_names(folder, index):
            for info in _headers(folder / file):
                if info.name in tensors:
                    both = f"{tensors[info.name].file} and {file}"
                    raise ModelError("tensor in two shards", value=info.name, limit=both)
                tensors[info.name] = info
        _check_index(index, tensors)
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

    def is_verbatim(self, name: str) -> bool:
        """Whether ``tensor`` gives what the file holds; a folder seen through a rotation computes some."""
        return name in self._tensors

    def tensor(self, name: str) -> torch.Tensor:
        """A copy of one tensor on the CPU."""
        return self._in_shard(name).clone()

    def mapped(self, name: str) -> torch.Tensor:
        """One tensor in the shard's mapped memory, which every reader of the open shard shares: never write to it."""
        return self._in_shard(name)

    def _in_shard(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._shard(name).get_tensor(name)
        return tensor

    def row(self, name: str, index: int) -> torch.Tensor:
        """Entry ``index`` along a tensor's first dimension, mapped; the rest is not read."""
        found: torch.Tensor = self._shard(name, rows=1).get_slice(name)[index : index + 1]
        return found[0]

    def _shard(self, name: str, rows: int | None = None) -> Any:
        """The shard that holds a tensor, mapped; all of it or so many rows will be read.

        Each thread keeps its last shard, since the header of thousands of experts is long.
        """
        info = self.info(name)
        held: _Opened | None = getattr(self._opened, "held", None)
        if held is None or held.file != info.file or held.read >= MAPPED_BYTES:
            self._opened.held = None  # unmapped before another is mapped
            held = self._opened.held = _Opened(info.file, safe_open(self.path / info.file, framework="pt"))
        held.read += info.nbytes if rows is None else rows * info.nbytes // info.shape[0]
        return held.shard

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


def _read_index(folder: Path) -> dict[str, str] | None:
    """File of every tensor, as the index says; None where the model is one file."""
    if not (folder / INDEX).exists():
        return None
    weight_map = read_json(folder / inside(folder, INDEX)).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError("the index has no weight_map", value=str(folder / INDEX))
    return weight_map


def _shard_names(folder: Path, index: dict[str, str] | None) -> list[str]:
    """The safetensors files that make up the model; none may lie outside the folder."""
    if index is not None:
        return sorted({inside(folder, _plain_name(name)) for name in index.values()})
    if (folder / SINGLE).exists():
        return [inside(folder, SINGLE)]
    others = sorted(path.name for end in PICKLES for path in folder.glob(f"*{end}"))
    if others:
        raise ModelError(
            "the weights are pickles, which can run code when opened",
            value=others[0],
            remedy="convert them to safetensors, or let qrun do it: --allow-pickle",
        )
    raise ModelError("the folder has a config but no weights", value=str(folder), limit=f"{SINGLE} or {INDEX}")


def _plain_name(name: Any) -> str:
    plain = isinstance(name, str) and "\0" not in name and Path(name).name == name and name not in ("", ".", "..")
    if not plain or len(name) > 255:
        what = "the index names a file outside the model folder"
        raise ModelError(what, value=str(name)[:200], limit="plain file names")
    return str(name)


def inside(folder: Path, name: str) -> str:
    """The name, where the file is no link that leads out; the hub's cache links to its own blobs."""
    home = folder.resolve()
    blobs = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    try:
        real = (folder / name).resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise ModelError("file cannot be read", value=name, limit=str(error)[:200]) from error
    if real.parent not in (home, blobs):
        raise ModelError("a link leads out of the model folder", value=name, remedy="put the file itself there")
    if real.exists() and not real.is_file():  # a pipe would make a reader wait for ever
        raise ModelError("not a regular file", value=name)
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


def _check_index(index: dict[str, str] | None, tensors: dict[str, TensorInfo]) -> None:
    """Every tensor that the index promises must be in the shard that it names."""
    for name, file in (index or {}).items():
        if name not in tensors or tensors[name].file != file:
            raise ModelError("tensor missing from its shard", value=name, limit=f"the index says {file}")
