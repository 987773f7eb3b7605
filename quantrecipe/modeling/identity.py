"""What must be the same for a resumed run to give the same bytes, as a table that can be compared line by line."""

from __future__ import annotations

import hashlib
import json
import platform
import struct
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from quantrecipe import __version__
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.recipe import Recipe

LIBRARIES = ("torch", "transformers", "compressed-tensors", "safetensors", "tokenizers", "numpy", "numba", "greenlet")
#: Pieces of a weight file that are hashed, spread evenly, and their size: 16 MiB of any file, under 0.1 s.
SAMPLES, SAMPLE_BYTES = 256, 65536
_SIMD = ("avx", "amx", "fma", "f16c", "sse", "sve", "asimd", "neon")


def identity(
    recipe: Recipe, folder: ModelFolder, device: str, tokens: dict[str, torch.Tensor | None]
) -> dict[str, str]:
    """Name -> value. tokens: those that are computed with, such as ``calibration tokens``.

    Weight files are not read whole (14 GB would take longer than many a run): size, time of change, the header and
    256 pieces of 64 KiB are. Provenance holds the full sha256, taken when the run ends.
    """
    return {f"recipe, {part}": _hash_json(value) for part, value in _parts(recipe).items()} | surroundings(
        folder, device, tokens
    )


def surroundings(folder: ModelFolder, device: str, tokens: Mapping[str, torch.Tensor | None]) -> dict[str, str]:
    """The same without a recipe: model, tokens, versions, machine."""
    found = {f"model file {name}": _sample(folder.path / name) for name in ["config.json", *folder.files()]}
    found |= {name: _hash_tensor(tensor) for name, tensor in tokens.items()}
    found |= {f"version of {name}": _version(name) for name in LIBRARIES}
    return found | {
        "version of quantrecipe": __version__,
        "version of python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "instruction set": instruction_set(),
    }


def differences(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What differs, each as ``name (before, now)``; long values (hashes) are left out."""
    return [
        name
        if max(len(before.get(name, "")), len(now.get(name, ""))) > 40
        else f"{name} ({_shown(before, now, name)})"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _shown(before: dict[str, str], now: dict[str, str], name: str) -> str:
    return f"was {before.get(name, 'absent')}, is {now.get(name, 'absent')}"


def instruction_set() -> str:
    """What kernels are chosen by: torch's capability, the processor's maker, its SIMD flags (hashed)."""
    flags, vendor = "", platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("flags", "Features") and not flags:
                flags = " ".join(sorted(flag for flag in value.split() if flag.startswith(_SIMD)))
            elif key.strip() == "vendor_id":
                vendor = value.strip()
    except OSError:
        pass
    digest = hashlib.sha256(flags.encode()).hexdigest()[:8]
    return f"{torch.backends.cpu.get_cpu_capability()} {vendor} {digest}"


def _parts(recipe: Recipe) -> dict[str, Any]:
    """The recipe's parts; its output and what only the report shows may change without harm to the weights."""
    return recipe.model_dump(mode="json", exclude={"output"})


def _hash_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _hash_tensor(tensor: torch.Tensor | None) -> str:
    return "none" if tensor is None else hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def _sample(path: Path) -> str:
    """sha256 over size, time of change, a safetensors header and pieces spread over the file; all of a small one."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size} {path.stat().st_mtime_ns}".encode())
    with path.open("rb") as file:
        if size <= SAMPLES * SAMPLE_BYTES:
            digest.update(file.read())
            return digest.hexdigest()
        (header,) = struct.unpack("<Q", file.read(8))
        digest.update(file.read(min(header, size)))
        for index in range(SAMPLES):
            file.seek((size - SAMPLE_BYTES) * index // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
