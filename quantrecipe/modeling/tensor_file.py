"""A safetensors file written in one go, tensor by tensor, without holding its tensors; same input, same bytes.

Layout (safetensors' own): 8 bytes little-endian length, JSON header, data. Tensors lie by falling item size, then by
name, so that each begins at a multiple of its item's size; the header is padded with spaces, so that data begin at a
multiple of 64 bytes, as in memory (products of matrices may be summed otherwise where memory lies otherwise).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch

from quantrecipe.modeling.files import Bytes, NewFile
from quantrecipe.modeling.folder import DTYPES

NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor to be written. write: appends exactly ``nbytes`` bytes, row-major."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    write: Callable[[NewFile], None]

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return prod(self.shape) * self.dtype.itemsize


def of_tensor(name: str, tensor: torch.Tensor) -> Piece:
    """A tensor in memory; kept until it is written."""
    held = tensor.detach().to("cpu").contiguous()
    return Piece(name, held.dtype, tuple(held.shape), lambda file: file.write(raw_bytes(held)))


def of_stored(name: str, path: Path, name_there: str) -> Piece:
    """A tensor of another safetensors file, copied by the kernel when its turn comes."""
    stored = read_header(path)[name_there]

    def write(file: NewFile) -> None:
        with path.open("rb") as source:
            file.copy(source.fileno(), stored.start, stored.nbytes)

    return Piece(name, stored.dtype, stored.shape, write)


def raw_bytes(tensor: torch.Tensor) -> Bytes:
    """The bytes of a contiguous CPU tensor, without a copy."""
    data: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(data)


def write_tensor_file(path: Path, pieces: Iterable[Piece]) -> str:
    """Write the pieces, flushed to the disk; sha256 of what was not copied by the kernel. Raises OutputError."""
    ordered = sorted(pieces, key=lambda piece: (-piece.dtype.itemsize, piece.name))
    with NewFile(path) as file:
        file.write(header_bytes(ordered))
        for piece in ordered:
            piece.write(file)
        return file.digest.hexdigest()


def header_bytes(ordered: Iterable[Piece]) -> bytes:
    """Length and header of a file that holds these pieces in this order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for piece in ordered:
        header[piece.name] = _entry(piece, end)
        end += piece.nbytes
    text = _json(header)
    text += b" " * (-(8 + len(text)) % 64)
    return struct.pack("<Q", len(text)) + text


def entry_bytes(piece: Piece, start: int) -> int:
    """Bytes of the piece's entry in a header, with the comma behind it, where its data begin at ``start``."""
    return len(_json({piece.name: _entry(piece, start)})) - 1


def _entry(piece: Piece, start: int) -> dict[str, object]:
    end = start + piece.nbytes
    return {"dtype": NAMES[piece.dtype], "shape": list(piece.shape), "data_offsets": [start, end]}


def _json(header: dict[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies in its file. start: bytes from the file's beginning."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    nbytes: int


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Where each tensor lies, in a file that has been checked (ModelFolder.open) or was written here."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            stored = StoredTensor(DTYPES[entry["dtype"]], tuple(entry["shape"]), 8 + length + start, end - start)
            found[name] = stored
    return found
