"""What ptxas says of a compiled kernel: registers, spills, shared memory; and every warning."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


@dataclass(frozen=True, slots=True)
class Report:
    """registers: of a thread. spilled, stack: bytes of a thread. shared: static bytes of a block."""

    registers: int
    spilled: int
    stack: int
    shared: int
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "warnings": list(self.warnings)}

    @classmethod
    def of(cls, data: dict[str, Any]) -> Report:
        """From what ``as_dict`` gave."""
        return cls(data["registers"], data["spilled"], data["stack"], data["shared"], tuple(data["warnings"]))


def read_report(log: str, entry: str) -> Report:
    """The part about ``entry`` of a log written with ``ptxas -v``; warnings of all of it."""
    part = next((part for part in log.split("Compiling entry function ")[1:] if part.startswith(f"'{entry}'")), "")
    used, shared, spills = USED.search(part), SHARED.search(part), SPILLS.search(part)
    stack, stores, loads = map(int, spills.groups()) if spills else (0, 0, 0)
    warnings = tuple(line.strip() for line in log.splitlines() if "warning" in line.lower())
    return Report(int(used[1]) if used else 0, stores + loads, stack, int(shared[1]) if shared else 0, warnings)
