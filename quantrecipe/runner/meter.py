"""Seconds and peak memory of each stage: resident and anonymous memory of this process, and of the GPU."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class StageRecord:
    """What one stage took. Memory in bytes; None where it could not be read.

    peak_memory: the most that was resident, pages of memory maps among it. exact: whether that peak belongs to
    this stage alone (the kernel's mark was reset) or is the largest since the process began.
    anonymous_memory: what was held beside memory maps when the stage ended.
    """

    name: str
    seconds: float
    peak_memory: int | None
    exact: bool
    anonymous_memory: int | None
    gpu_peak_memory: int | None = None


@dataclass(slots=True)
class Meter:
    """Collects a record a stage, in order."""

    stages: list[StageRecord] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure what happens within, also where it fails."""
        exact, began = _reset_peak(), time.perf_counter()
        try:
            yield
        finally:
            seconds = round(time.perf_counter() - began, 3)
            record = StageRecord(name, seconds, peak_memory(), exact, anonymous_memory(), _gpu_peak())
            self.stages.append(record)

    def add(self, name: str, seconds: float, peak: int | None) -> None:
        """A stage that another process carried out and measured."""
        self.stages.append(StageRecord(name, round(seconds, 3), peak, True, None))

    @property
    def peak(self) -> int | None:
        """The largest peak of all stages."""
        return max((stage.peak_memory for stage in self.stages if stage.peak_memory), default=None)

    def to_json(self) -> list[dict[str, Any]]:
        """The records as plain data."""
        return [asdict(stage) for stage in self.stages]


def peak_memory() -> int | None:
    """Peak resident bytes since the mark was last reset, or since the process began."""
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def anonymous_memory() -> int | None:
    """Bytes held beside memory maps of files; None where that is not known."""
    return _status("RssAnon")


def _reset_peak() -> bool:
    """Reset the kernel's high-water mark (Linux); False where that cannot be done."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _status(key: str) -> int | None:
    """Bytes of one line of /proc/self/status; None where there is none."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def _gpu_peak() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())


def available_memory() -> int | None:
    """Bytes that this process may still take: the machine's, or its cgroup's where that is less."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    limit = _cgroup_room()
    return min(free, limit) if free is not None and limit is not None else free


def _cgroup_room() -> int | None:
    """What the control group still allows; page cache counts as free."""
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        cache = next(line for line in (group / "memory.stat").read_text().splitlines() if line.startswith("file "))
    except (OSError, ValueError, StopIteration):
        return None
    return None if limit == "max" else int(limit) - used + int(cache.split()[1])
