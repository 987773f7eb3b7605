"""What a run leaves: paths, measures, verdicts, and the data that reports are made from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantrecipe.runner.evaluate import Convention, Measures
from quantrecipe.runner.intervals import Interval
from quantrecipe.runner.judge import GateResult


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of ``quantrecipe.run``.

    output: the checkpoint's folder. report: the Markdown file. results: what results.json holds.
    exit_code: 0, or 1 where a gate failed, or 2 where one stays unsure.
    """

    output: Path
    report: Path
    measures: Measures | None
    gates: tuple[GateResult, ...]
    exit_code: int
    results: dict[str, Any] = field(repr=False)

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        return str(self.results["verdict"]["sentence"])


def measures_of(row: dict[str, Any] | None) -> Measures | None:
    """Measures as results.json holds them."""
    if row is None:
        return None
    intervals = {name: row[name] and Interval(**row[name]) for name in ("increase", "kl", "agreement")}
    return Measures(**{**row, "convention": Convention(**row["convention"]), **intervals})
