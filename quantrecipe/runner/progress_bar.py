"""The bar on a terminal: stage, units done, speed, time left, and the block at work."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Bar:
    """A rich progress display on stderr, one line a stage; finished stages stay above."""

    def __init__(self, console: Console | None = None) -> None:
        columns = (
            TextColumn("[bold]{task.description:<12}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[pace]}", style="cyan"),
            TextColumn("{task.fields[details]}", style="dim"),
        )
        self._progress = Progress(*columns, console=console or Console(stderr=True))
        self._task: TaskID | None = None
        self._progress.start()

    def start(self, stage: str, total: int | None = None, unit: str = "blocks") -> None:
        """A new line; the one before is complete."""
        self._finish()
        self._task = self._progress.add_task(
            stage, total=total, unit=unit if total else "", pace="", details="", start=True
        )

    def advance(self, amount: int = 1, **details: Any) -> None:
        """Move the bar."""
        if self._task is None:
            return
        self._progress.advance(self._task, amount)
        task = self._progress.tasks[self._task]
        pace = f"{task.speed:.1f}/s" if task.speed else ""
        if task.time_remaining:
            pace += f", {task.time_remaining:.0f} s left"
        self._progress.update(self._task, pace=pace, details=" ".join(str(value) for value in details.values()))

    def note(self, text: str) -> None:
        """A line above the bars."""
        self._progress.console.print(f"  {text}", highlight=False, markup=False)

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._finish()
        self._progress.stop()

    def _finish(self) -> None:
        if self._task is None:
            return
        task = self._progress.tasks[self._task]
        total = task.total if task.total is not None else max(task.completed, 1)
        self._progress.update(self._task, total=total, completed=total, pace="", details="")
        self._progress.stop_task(self._task)
