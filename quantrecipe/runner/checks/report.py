"""What was checked, what is wrong, what looks wrong but cannot be told, and what could not be checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

#: Lines of one kind of fault; a checkpoint that is wrong throughout has thousands.
MOST_LINES = 5


@dataclass(slots=True)
class Integrity:
    """checked, faults, suspects, unchecked: one line each; see ``exit_code``. unsaid: faults without a line."""

    folder: Path
    checked: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    suspects: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    unsaid: int = 0

    @property
    def exit_code(self) -> int:
        """1 where anything is wrong, 2 where something looks wrong and cannot be judged, else 0."""
        return 1 if self.faults else 2 if self.suspects else 0

    def damaged(self, lines: Iterable[str], more: str = "more faults of this kind") -> bool:
        """Add faults of one kind, the first few of them; whether there were any."""
        found = list(lines)
        self.faults += [*islice(found, MOST_LINES), *_rest(len(found) - MOST_LINES, more)]
        self.unsaid += max(len(found) - MOST_LINES - 1, 0)
        return bool(found)

    def doubtful(self, lines: Iterable[str], more: str = "more of this kind") -> None:
        """Add suspicions of one kind, the first few of them."""
        found = list(lines)
        self.suspects += [*islice(found, MOST_LINES), *_rest(len(found) - MOST_LINES, more)]

    def lines(self) -> Iterator[str]:
        """The report, the verdict last."""
        yield from (f"ok         {line}" for line in self.checked)
        yield from (f"unchecked  {line}" for line in self.unchecked)
        yield from (f"unsure     {line}" for line in self.suspects)
        yield from (f"DAMAGED    {line}" for line in self.faults)
        yield f"{self.folder}: {self._verdict()}"

    def _verdict(self) -> str:
        if self.faults:
            return f"damaged, {_count(len(self.faults) + self.unsaid, 'fault')}"
        return f"cannot be judged, {_count(len(self.suspects), 'doubt')}" if self.suspects else "sound"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def _rest(count: int, more: str) -> list[str]:
    return [f"and {count} {more}"] if count > 0 else []
