"""What each unit loses under each option, by each measure; measured once, kept, gone on with after a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from quantrecipe.errors import OutputError
from quantrecipe.modeling import files
from quantrecipe.safe_json import read_json

FILE = "losses.json"


class Cell(NamedTuple):
    """One unit under one option (``w4a16-g64``)."""

    unit: str
    option: str


@dataclass(slots=True)
class LossTable:
    """Figures by measure and cell, additive over units, never negative.

    ``loss`` is what the optimiser is given: nats of KL a token on the calibration text. Other measures keep units
    of their own (measures/__init__.py). seconds: what measuring took, all runs together.
    """

    identity: dict[str, str]
    figures: dict[str, dict[Cell, float]] = field(default_factory=dict)
    seconds: float = 0.0

    def put(self, measure: str, cell: Cell, value: float) -> None:
        """Set one figure; what rounding has made negative becomes 0."""
        self.figures.setdefault(measure, {})[cell] = max(value, 0.0)

    def losses(self, measure: str = "loss") -> dict[tuple[str, str], float]:
        """(unit, option) -> figure. Raises OutputError for a measure that was not taken."""
        if measure not in self.figures:
            known = ", ".join(sorted(self.figures))
            raise OutputError("not measured", value=measure, limit=known, remedy="choose a higher --effort")
        return {(cell.unit, cell.option): value for cell, value in self.figures[measure].items()}

    def add_rows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Take in rows (measure, unit, option, value) of a journal or a file."""
        for measure, unit, option, value in rows:
            self.put(measure, Cell(unit, option), float(value))

    def rows(self) -> list[list[Any]]:
        """All figures as sorted rows (measure, unit, option, value)."""
        return sorted(
            [measure, cell.unit, cell.option, value]
            for measure, found in self.figures.items()
            for cell, value in found.items()
        )

    def save(self, folder: Path) -> Path:
        """Write it whole into the folder: same figures, same bytes but for ``seconds``."""
        data = {"identity": self.identity, "rows": self.rows(), "seconds": self.seconds}
        files.write_whole(folder / FILE, [(json.dumps(data, sort_keys=True, indent=1) + "\n").encode()])
        return folder / FILE

    @classmethod
    def load(cls, folder: Path, identity: Mapping[str, str]) -> LossTable | None:
        """The finished table of that identity; None where there is none."""
        if not (folder / FILE).is_file():
            return None
        data = read_json(folder / FILE)
        if data.get("identity") != dict(identity):
            return None
        table = cls(dict(identity), seconds=float(data["seconds"]))
        table.add_rows(data["rows"])
        return table


def cache_folder(home: Path, identity: Mapping[str, str]) -> Path:
    """The folder in which a table of that identity lies or grows; made where it is not there."""
    text = json.dumps(dict(identity), sort_keys=True)
    return files.make_folder(home / hashlib.sha256(text.encode()).hexdigest()[:16])
