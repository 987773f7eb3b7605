"""What a reader of a checkpoint format does, and the little that all of them share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import ClassVar

import torch

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats.decoded import Decoded

FLOATS = (torch.float16, torch.bfloat16, torch.float32)


class Reader:
    """Reads the quantized modules of one folder, as one format lays them out.

    name: of the format, in the recipe's words. marks: suffixes that only its quantized modules have.
    suffixes: of all tensors that can stand for a module's weight.
    """

    name: ClassVar[str] = ""
    marks: ClassVar[tuple[str, ...]] = ()
    suffixes: ClassVar[tuple[str, ...]] = ()

    def modules(self, folder: ModelFolder) -> list[str]:
        """Names of all modules stored as codes, sorted."""
        ends = [f".{mark}" for mark in self.marks]
        return sorted({name.removesuffix(end) for name in folder.names for end in ends if name.endswith(end)})

    def parts(self, folder: ModelFolder, module: str) -> list[str]:
        """Names of the tensors that stand for the module's weight."""
        return [f"{module}.{suffix}" for suffix in self.suffixes if f"{module}.{suffix}" in folder]

    def faults(self, folder: ModelFolder, module: str) -> Iterator[str]:
        """What is missing, or contradicts the config or another tensor; a line each."""
        raise NotImplementedError

    def shape(self, folder: ModelFolder, module: str) -> tuple[int, int]:
        """(N, K) of the weight, from shapes alone."""
        raise NotImplementedError

    def bits(self, module: str) -> int:
        """Bits of a code, as the config says."""
        raise NotImplementedError

    def read(self, folder: ModelFolder, module: str) -> Decoded:
        """The parts of a module that has no faults."""
        raise NotImplementedError

    def decode(self, folder: ModelFolder, module: str) -> Decoded:
        """The module taken apart. Raises ModelError where ``faults`` has any."""
        fault = next(self.faults(folder, module), None)
        if fault is not None:
            raise ModelError(f"cannot be read as {self.name}: {fault}")
        return self.read(folder, module)

    def nbytes(self, folder: ModelFolder, module: str) -> int:
        """Bytes of all that stands for the weight."""
        return sum(folder.info(part).nbytes for part in self.parts(folder, module))


def tensor_fault(
    folder: ModelFolder, name: str, dtypes: Iterable[torch.dtype], shapes: Iterable[tuple[int, ...]]
) -> str | None:
    """Why a tensor is not what a format wants; None where it is one of these dtypes and shapes."""
    if name not in folder:
        return f"{name} is missing"
    info, dtypes, shapes = folder.info(name), tuple(dtypes), tuple(shapes)
    if info.dtype not in dtypes:
        return f"{name} is {_dtype(info.dtype)}, not {' or '.join(map(_dtype, dtypes))}"
    if info.shape not in shapes:
        return f"{name} has shape {list(info.shape)}, not {' or '.join(str(list(shape)) for shape in shapes)}"
    return None


def matrix_fault(folder: ModelFolder, name: str) -> str | None:
    """Why a tensor is no matrix with anything in it."""
    if name not in folder:
        return f"{name} is missing"
    shape = folder.info(name).shape
    return None if len(shape) == 2 and prod(shape) > 0 else f"{name} has shape {list(shape)}, not that of a matrix"


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
