"""How far a run is: a bar on a terminal, plain lines elsewhere, JSON lines for machines."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from quantrecipe.errors import OutputError
from quantrecipe.plugins.contract import Progress

_SECONDS_BETWEEN_LINES = 10.0


class Quiet:
    """Says nothing; what ``quantrecipe.run`` uses unless told otherwise."""

    def start(self, stage: str, total: int | None = None, unit: str = "blocks") -> None:
        """Nothing."""

    def advance(self, amount: int = 1, **details: Any) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Pace:
    """Units done of a stage, their speed and the time left; the base of every display."""

    stage, unit = "", "blocks"
    total: int | None = None
    done = 0
    began = 0.0

    def start(self, stage: str, total: int | None = None, unit: str = "blocks") -> None:
        """A stage begins."""
        self.stage, self.total, self.unit, self.done, self.began = stage, total, unit, 0, time.monotonic()

    def advance(self, amount: int = 1, **details: Any) -> None:
        """Units are done."""
        self.done += amount

    def close(self) -> None:
        """The run ends."""

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return time.monotonic() - self.began

    @property
    def speed(self) -> float:
        """Units a second."""
        return self.done / max(self.seconds, 1e-9)

    @property
    def left(self) -> float | None:
        """Seconds left at this speed."""
        return (self.total - self.done) / self.speed if self.total and self.done else None


class Plain(Pace):
    """One line when a stage begins, at most one every ten seconds within it."""

    def __init__(self, stream: IO[str] | None = None, interval: float = _SECONDS_BETWEEN_LINES) -> None:
        self.stream, self.interval, self._last = stream or sys.stderr, interval, 0.0

    def start(self, stage: str, total: int | None = None, unit: str = "blocks") -> None:
        """Print the stage's name."""
        super().start(stage, total, unit)
        self._last = self.began
        self._print(f"{stage} ({total} {unit})" if total else stage)

    def advance(self, amount: int = 1, **details: Any) -> None:
        """Print how far the stage is, where the last line is old enough."""
        super().advance(amount)
        now = time.monotonic()
        if now - self._last < self.interval:
            return
        self._last = now
        left = f", {self.left:.0f} s left" if self.left is not None else ""
        more = "".join(f", {key} {value}" for key, value in details.items())
        self._print(f"  {self.done}/{self.total or '?'} {self.unit}, {self.speed:.2f}/s{left}{more}")

    def note(self, text: str) -> None:
        """Print one line."""
        self._print(f"  {text}")

    def _print(self, line: str) -> None:
        print(line, file=self.stream, flush=True)


class JsonLog(Pace):
    """One JSON object a line: event, stage, done, total, unit, seconds, and the details."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise OutputError("cannot write the log", value=str(path), limit=error.strerror) from error

    def start(self, stage: str, total: int | None = None, unit: str = "blocks") -> None:
        """Write a ``start`` event."""
        super().start(stage, total, unit)
        self._write("start")

    def advance(self, amount: int = 1, **details: Any) -> None:
        """Write an ``advance`` event."""
        super().advance(amount)
        self._write("advance", details={key: str(value) for key, value in details.items()})

    def note(self, text: str) -> None:
        """Write a ``note`` event."""
        self._write("note", text=text)

    def close(self) -> None:
        """Write an ``end`` event and close the file."""
        if not self._file.closed:
            self._write("end")
            self._file.close()

    def _write(self, event: str, **more: Any) -> None:
        data = {"event": event, "stage": self.stage, "done": self.done, "total": self.total, "unit": self.unit}
        data |= {"seconds": round(self.seconds, 3), "time": round(time.time(), 3)} | more
        self._file.write(json.dumps(data, sort_keys=True) + "\n")
        self._file.flush()


class Together:
    """Several displays as one."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)

    def start(self, stage: str, total: int | None = None, unit: str = "blocks") -> None:
        """Pass it on."""
        for part in self.parts:
            part.start(stage, total, unit)

    def advance(self, amount: int = 1, **details: Any) -> None:
        """Pass it on."""
        for part in self.parts:
            part.advance(amount, **details)

    def note(self, text: str) -> None:
        """Pass it on."""
        for part in self.parts:
            part.note(text)

    def close(self) -> None:
        """Pass it on."""
        for part in self.parts:
            part.close()


def for_terminal(log: Path | None = None) -> Together:
    """What ``qrun`` shows: a bar where stderr is a terminal, plain lines where not, and the log if asked for."""
    parts: list[Any] = [JsonLog(log)] if log else []
    if sys.stderr.isatty():
        from quantrecipe.runner.progress_bar import Bar

        return Together([Bar(), *parts])
    return Together([Plain(), *parts])


def _check(display: Quiet | Plain | JsonLog | Together) -> Progress:
    """Every display is a Progress (checked by mypy)."""
    return display
