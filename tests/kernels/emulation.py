"""CUDA sources compiled by g++ against emulator/ and launched over numpy arrays or torch's CPU tensors."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from quantrecipe.kernels.catalog import SOURCES, Variant

HERE = Path(__file__).parent / "emulator"
SANITIZE = os.environ.get("EMULATOR_SANITIZE") == "1"  # needs LD_PRELOAD of libasan, see test_emulated_bounds.py
FLAGS = ["-std=c++17", "-shared", "-fPIC", "-w", "-fno-strict-aliasing", "-ffp-contract=off", "-DEMULATED"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-sanitize=shift", "-g"]
ENTRY = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(')
Argument = np.ndarray | torch.Tensor | ctypes._SimpleCData | None

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile the emulation with")


class Launched(AssertionError):
    """What the emulator found wrong with a launch: divergence at a barrier, a deadlock, wrong arguments."""


class Emulated:
    """One kernel of a source, with macros."""

    def __init__(self, source: Path, entry: str, macros: Iterable[tuple[str, str]] = ()) -> None:
        self.entry = entry
        self.run = getattr(library(source, tuple(macros)), f"run_{entry}")
        self.run.restype = ctypes.c_char_p

    def __call__(
        self, grid: Sequence[int], block: Sequence[int], shared: int, *arguments: Argument, seed: int = 0
    ) -> None:
        """Launch; arrays and tensors are passed as pointers, None as a null pointer, ctypes values as they are."""
        values = [as_value(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        sizes = (ctypes.c_uint * len(values))(*(ctypes.sizeof(value) for value in values))
        shape = [(ctypes.c_uint * 3)(*dims, *(1,) * (3 - len(dims))) for dims in (grid, block)]
        fault = self.run(*shape, shared, pointers, sizes, len(values), ctypes.c_uint64(seed))
        if fault:
            raise Launched(f"{self.entry}: {fault.decode()}")


def as_value(argument: Argument) -> ctypes._SimpleCData:
    if argument is None:
        return ctypes.c_void_p(0)
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    if isinstance(argument, torch.Tensor):
        return ctypes.c_void_p(argument.data_ptr())
    return argument


@cache
def library(source: Path, macros: tuple[tuple[str, str], ...]) -> ctypes.CDLL:
    """All kernels of a source, compiled unless the same was before."""
    text = f'#include "emulate.h"\n#include "{source}"\n'
    text += "".join(f"EMULATED_ENTRY({entry})\n" for entry in ENTRY.findall(source.read_text()))
    flags = [*FLAGS, *(SANITIZERS if SANITIZE else []), "-O1", *(f"-D{name}={value}" for name, value in macros)]
    folder = Path(tempfile.gettempdir()) / f"quantrecipe-emulated-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    made = folder / f"{source.stem}-{fingerprint(source, text, flags)}.so"
    if not made.exists():
        unfinished = made.with_suffix(f".{os.getpid()}")
        command = ["g++", *flags, f"-I{HERE}", f"-I{SOURCES}", "-x", "c++", "-", "-o", str(unfinished)]
        done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr[:4000]
        unfinished.replace(made)
    return ctypes.CDLL(str(made))


def fingerprint(source: Path, text: str, flags: list[str]) -> str:
    headers = sorted([*HERE.glob("*.*h"), *SOURCES.glob("*.cuh")])
    parts = [text, *flags, *(path.read_text() for path in (source, *headers))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


@cache
def emulated(variant: Variant) -> Emulated:
    return Emulated(variant.source, variant.kernel.name, variant.macros)


def launch_emulated(
    variant: Variant, grid: Sequence[int], threads: int, shared: int, arguments: Sequence[Argument]
) -> None:
    """A Launcher for quantrecipe.kernels.cuda.launch.launching_with; the order of threads is random."""
    assert threads <= variant.kernel.threads, f"{variant.label}: {threads} threads"
    assert shared <= variant.kernel.shared, f"{variant.label}: {shared} bytes of shared memory"
    emulated(variant)(grid, [threads], shared, *arguments, seed=secrets.randbits(32))
