"""Which devices this machine has: asked only where neither memory nor hardware was named."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping

from quantrecipe.advisor.tables import Device

_QUERY = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")


def host_memory() -> int | None:
    """Bytes of main memory that this process may use; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def detect(known: Mapping[str, Device]) -> tuple[Device | None, int]:
    """The first NVIDIA device and how many there are of it; None and 0 where there is none."""
    rows = _rows()
    if not rows:
        return None, 0
    name, memory = rows[0]
    size = memory * 2**20
    same = [device for device in known.values() if _names(device.name) <= _names(name)]
    best = min(same, key=lambda device: abs((device.memory or 0) - size), default=None)
    found = best._replace(memory=size) if best else Device(name, "nvidia", "unknown", size)
    return found, sum(row == rows[0] for row in rows)


def _names(text: str) -> set[str]:
    """The words of a device's name that are not its size: ``NVIDIA A100-SXM4-80GB`` has a100."""
    return {word for word in re.findall(r"[a-z0-9]+", text.lower()) if not word.endswith("gb")} - {"nvidia"}


def _rows() -> list[tuple[str, int]]:
    """(name, MiB) of each NVIDIA device, as the driver's own program prints them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        result = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = (line.rsplit(",", 1) for line in result.stdout.splitlines() if "," in line)
    return [(name.strip(), int(size)) for name, size in lines if size.strip().isdigit()]
