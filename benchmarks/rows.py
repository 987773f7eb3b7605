"""Rows of the comparison tables: what a recipe costs one model, measured once and kept as a JSON file."""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import quantrecipe
from quantrecipe.errors import QuantRecipeError
from quantrecipe.recipe import Recipe
from quantrecipe.runner.intervals import Interval

#: Where a table shows what was not measured.
MISSING = "–"


def group(scheme: str, method: str = "rtn", **more: Any) -> dict[str, Any]:
    """The quantization of a recipe with one group."""
    return {"config_groups": {"main": {"scheme": scheme, "method": method}}, **more}


def percent(found: Interval) -> str:
    """Nats as a relative change of perplexity, with its interval."""
    low, high = (math.nan if x is None else math.expm1(x) for x in (found.low, found.high))
    return f"{math.expm1(found.value):+.2%} ({low:+.2%} … {high:+.2%})"


def write_below(file: Path, mark: str, text: str) -> None:
    """Put ``text`` into a page between ``<!-- mark -->`` and ``<!-- end of mark -->``."""
    first, last = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    page = file.read_text(encoding="utf-8")
    before, after = page.partition(first)[0], page.partition(last)[2]
    file.write_text(f"{before}{first}\n\n{text}\n\n{last}{after}", encoding="utf-8")


@dataclass(frozen=True)
class Setting:
    """Calibration sequences, their tokens, and the held-out windows with theirs."""

    samples: int
    length: int
    windows: int
    window: int

    def parts(self) -> dict[str, Any]:
        """The recipe's words for it."""
        return {
            "calibration": {"samples": self.samples, "sequence_length": self.length},
            "evaluation": {"perplexity": {"sequence_length": self.window, "windows": self.windows}},
        }


#: The shipped model and its kin; SmolLM2-135M, of which a row takes minutes on one core.
SMALL, LARGE = Setting(32, 512, 64, 512), Setting(16, 512, 40, 256)


@dataclass(frozen=True)
class Row:
    """One recipe on one model. model: folder or name. quantization: the recipe's part."""

    model: str
    name: str
    quantization: dict[str, Any]
    setting: Setting

    def recipe(self) -> Recipe:
        """All of it."""
        parts = {"model": {"id": self.model}, "quantization": self.quantization, **self.setting.parts()}
        return Recipe.model_validate(parts)

    @property
    def model_name(self) -> str:
        """Its folder's name, or that of the folder above where tools/train_family.py calls it model/."""
        path = Path(self.model)
        return path.parent.name if path.name == "model" else path.name

    @property
    def key(self) -> str:
        """Ten digits that change with whatever the numbers depend on, the model's weights and our code apart."""
        asked = [self.model_name, self.quantization, self.setting.parts()]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:10]


@cache
def code() -> str:
    """Ten digits that change with any file of the package's code."""
    package = Path(quantrecipe.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(one for kind in ("*.py", "*.cu", "*.cuh") for one in package.rglob(kind)):
        digest.update(f"{file.relative_to(package)} {hashlib.sha256(file.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()[:10]


class Store:
    """A folder of measured rows: one file each, written whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, row: Row) -> dict[str, Any] | None:
        """What was measured; None where it was not yet."""
        file = self._file(row)
        return json.loads(file.read_text()) if file.exists() else None

    def write(self, row: Row, found: dict[str, Any]) -> None:
        """Keep it. A kill leaves the whole row or none."""
        file = self._file(row)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        about = {"model": row.model_name, "row": row.name, "quantization": row.quantization, "code": code()}
        part.write_text(json.dumps({**about, **found}) + "\n")
        part.replace(file)

    def stale(self, row: Row) -> bool:
        """Whether it was measured by other code than this, or never."""
        found = self.read(row)
        return found is None or found.get("code") != code()

    def _file(self, row: Row) -> Path:
        return self.folder / f"{row.key}.json"


def measure_losses(row: Row) -> dict[str, Any]:
    """Quantize and score in this process, without the checks of another loader; losses a window in nats."""
    from quantrecipe.runner import measure
    from quantrecipe.runner.baseline import rounded
    from quantrecipe.runner.evaluate import Scoring, score
    from quantrecipe.runner.locate import find
    from quantrecipe.runner.pipeline import identity_of, order
    from quantrecipe.runner.preflight import preflight
    from quantrecipe.runner.progress import Quiet
    from quantrecipe.runner.staging import staging

    model, began = find(row.model), time.process_time()
    with (
        tempfile.TemporaryDirectory(prefix="rows-") as place,
        staging(Path(place) / "out", False, keep=model) as stage,
    ):
        prepared = preflight(row.recipe(), model, Path(place) / "out", "cpu")
        stage.begin(identity_of(prepared))
        checkpoint = prepared.backend.quantize(order(prepared, stage, Quiet()))
        quantized = time.process_time()
        subject = measure.subject_of(prepared, checkpoint, Quiet())
        assert subject is not None
        scoring = Scoring(divergence=False, cache=subject.scoring.cache)
        scores = score(subject.original, subject.quantized, subject.windows.tokens, Quiet(), scoring)
        size = measure.sizes(prepared, checkpoint)
    return {
        "size": size,
        "original": rounded(scores.original),
        "quantized": rounded(scores.quantized),
        "quantize_cpu_seconds": round(quantized - began, 2),
        "cpu_seconds": round(time.process_time() - began, 2),
    }


class Clock:
    """A progress that notes the CPU seconds, those of finished children among them, of every stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.stage, self.began = "start", _cpu()

    def start(self, stage: str, total: int | None = None, unit: str = "blocks") -> None:
        """The stage before ends."""
        now = _cpu()
        self.seconds[self.stage] = round(self.seconds.get(self.stage, 0.0) + now - self.began, 2)
        self.stage, self.began = stage, now

    def advance(self, amount: int = 1, **details: Any) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure_run(row: Row) -> dict[str, Any]:
    """The recipe as ``qrun`` carries it out: verified by another loader, measured, with what each stage took."""
    from quantrecipe.runner.pipeline import run

    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="rows-") as place:
        found = run(row.recipe(), output=Path(place) / "out", device="cpu", progress=clock).results
    clock.start("end")
    stage = next(one for one in found["stages"] if one["name"] == "quantize")
    return {
        "size": found["size"],
        "measures": found["measures"],
        "original": found["windows"]["original"],
        "quantized": found["windows"]["quantized"],
        "cpu_seconds": clock.seconds,
        "peak_memory": stage["peak_memory"],
        "loader": found["verified"]["loader"],
    }


def quantizing(seconds: dict[str, float]) -> float:
    """CPU seconds between pre-flight and finish: other libraries name the stages there as they like."""
    stages = list(seconds)
    return sum(seconds[one] for one in stages[stages.index("preflight") + 1 : stages.index("finish")])


def carry_out(script: Path, row: Row, store: Store) -> str | None:
    """Run one row by ``script``, whose ``--run`` calls ``run_here``, in another process; why not, if it cannot be."""
    with tempfile.TemporaryDirectory(prefix="rows-") as place:
        command = [sys.executable, str(script.absolute()), str(store.folder), "--model", row.model, "--run", row.name]
        process = subprocess.run(command, cwd=place, env=os.environ, capture_output=True, text=True, check=False)
    return None if process.returncode == 0 else process.stderr.strip().rpartition("\n")[2]


def carry_out_missing(script: Path, rows: Iterable[Row], store: Store, again: bool = False) -> None:
    """Those that were not run whole yet. again: those too that other code than this ran."""
    for row in rows:
        if "measures" not in (store.read(row) or {}) or (again and store.stale(row)):
            refused = carry_out(script, row, store)
            print(f"{row.name}: {refused or 'done'}", file=sys.stderr, flush=True)


def run_here(row: Row, store: Store) -> int:
    """What the process of a row does."""
    try:
        store.write(row, measure_run(row))
    except QuantRecipeError as error:
        print(error.line(), file=sys.stderr)
        return 2
    return 0
