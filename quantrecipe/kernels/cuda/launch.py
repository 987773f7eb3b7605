"""Launching a kernel: on the tensors' device and torch's current stream, or where a test puts another launcher."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from quantrecipe.errors import BackendError
from quantrecipe.kernels.catalog import Variant

Grid = Sequence[int]
Argument = Any  # torch.Tensor, None (a null pointer) or a ctypes number; ctypes has no public base class


class Launcher(Protocol):
    """Runs one kernel."""

    def __call__(
        self, variant: Variant, grid: Grid, threads: int, shared: int, arguments: Sequence[Argument]
    ) -> None:
        """Launch; ``shared`` = bytes of dynamic shared memory."""


_instead: list[Launcher] = []


def launch(variant: Variant, grid: Grid, threads: int, shared: int, *arguments: Argument) -> None:
    """Launch ``variant`` with blocks of ``threads``; nothing is waited for."""
    if any(not dimension for dimension in grid):  # nothing to do; the driver refuses an empty grid
        return
    if _instead:
        _instead[-1](variant, grid, threads, shared, arguments)
        return
    from quantrecipe.kernels.cuda.device import launch_on_device

    launch_on_device(variant, grid, threads, shared, arguments)


@contextmanager
def launching_with(launcher: Launcher) -> Iterator[None]:
    """Within: every launch goes to ``launcher``, which lets tests run launchers without a GPU."""
    _instead.append(launcher)
    try:
        yield
    finally:
        _instead.pop()


def integer(value: int) -> ctypes.c_int:
    """A parameter ``int``."""
    return ctypes.c_int(value)


def long_integer(value: int) -> ctypes.c_longlong:
    """A parameter ``long long``: strides and offsets of tensors."""
    return ctypes.c_longlong(value)


def scalar_name(dtype: torch.dtype) -> str:
    """The kernels' name of a 16-bit type. Raises BackendError for others."""
    names = {torch.float16: "f16", torch.bfloat16: "bf16"}
    if dtype not in names:
        raise BackendError("no CUDA kernel for this type", value=str(dtype), limit="torch.float16 or torch.bfloat16")
    return names[dtype]


def blocks(work: int, each: int) -> int:
    """Blocks that ``work`` takes when one does ``each`` of it."""
    return -(-work // each)
