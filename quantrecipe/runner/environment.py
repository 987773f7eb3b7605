"""What computes here: versions of the libraries, and the kind of machine."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "compressed-tensors", "safetensors", "tokenizers", "numpy", "numba")


def environment(device: str) -> dict[str, Any]:
    """Versions of what computed, and on what kind of machine."""
    import torch

    name = torch.cuda.get_device_name() if device == "cuda" else processor()
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def processor() -> str:
    """The processor's name as Linux gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    found = next((line for line in lines if line.startswith("model name")), "")
    return found.partition(":")[2].strip() or platform.processor()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
