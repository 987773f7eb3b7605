"""Which published findings hold on small models, each tried over the same held-out windows.

    python tools/train_family.py TEXTS FAMILY
    python benchmarks/findings.py STORE --family FAMILY --smollm2 SmolLM2-135M

Rows are kept in STORE, so that a stopped run goes on. A finding holds where the whole 95 % interval of its contrast
(paired by window, benchmarks/claims.py) lies on its side, does not hold where the whole interval lies on the other,
and otherwise the text cannot tell. Intervals are not corrected for their number: of 100 true ones 5 would miss.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from claims import CLAIMS, MOST_BYTES, NONE, ROWS, TIE, Claim, Test
from rows import LARGE, MISSING, SMALL, Row, Setting, Store, measure_losses, percent, write_below

from quantrecipe.errors import QuantRecipeError
from quantrecipe.modeling.skeleton import local_path
from quantrecipe.runner.intervals import Interval, mean_interval
from quantrecipe.safe_json import read_json

LLAMA, OPT = ("llama-64", "llama-128", "demo"), ("opt-64", "opt-128", "opt-192")
SMOLLM2 = "SmolLM2-135M"
OUTCOMES = ("held", "did not hold", "cannot tell")


def judged(found: Interval, bound: str) -> str:
    """One of OUTCOMES."""
    if found.low is None or found.high is None:
        return "cannot tell"
    if bound == "above 0":
        holds, fails = found.low > 0, found.high < 0
    elif bound == "below tie":
        holds, fails = found.high < TIE, found.low > TIE
    else:
        holds, fails = found.low > -TIE and found.high < TIE, found.low > TIE or found.high < -TIE
    return "held" if holds else "did not hold" if fails else "cannot tell"


@dataclass(frozen=True)
class Line:
    """A test tried on one model or pair."""

    where: str
    test: Test
    found: Interval | None

    @property
    def outcome(self) -> str | None:
        """None where rows are missing."""
        return None if self.found is None else judged(self.found, self.test.bound)


class Bench:
    """Models by name, and what was measured on them."""

    def __init__(self, store: Store, models: dict[str, str]) -> None:
        self.store, self.models = store, models

    def row(self, model: str, name: str) -> Row:
        """The recipe ``name`` on ``model``."""
        return Row(self.models[model], name, ROWS[name], setting_of(model))

    def bits(self, model: str, name: str) -> float:
        """Bits of the quantized matrices together, by the row or, before it is measured, by its name."""
        found = next((one for each in ROWS if (one := self.store.read(self.row(model, each)))), None)
        row = found if name == NONE else self.store.read(self.row(model, name))
        weights = 0 if found is None else found["size"]["quantized_weights"]
        nominal = 16.0 if name == NONE else float(name[1])
        return weights * (nominal if row is None or name == NONE else row["size"]["bits_per_weight"])

    def alike_in_bytes(self, test: Test, models: dict[str, str]) -> bool:
        """Whether the larger model's matrices take hardly more than the smaller's."""
        took = {
            str(term[1]): self.bits(models[str(term[1])], str(term[2])) for term in test.contrast if len(term) == 3
        }
        return took["large"] <= MOST_BYTES * took["small"]

    def width(self, model: str) -> int:
        """Its hidden size."""
        config = read_json(local_path(self.models[model]) / "config.json", QuantRecipeError)
        return int(config["hidden_size"])

    def losses(self, model: str, name: str) -> list[float] | None:
        """A window's losses; None where the row is missing."""
        if name == NONE:
            first = next((found for one in ROWS if (found := self.store.read(self.row(model, one)))), None)
            return None if first is None else first["original"]
        found = self.store.read(self.row(model, name))
        return None if found is None else found["quantized"]

    def contrast(self, test: Test, models: dict[str, str]) -> Interval | None:
        """The mean over windows of the test's sum; ``models`` maps "small", "large" or "" to a model."""
        total: list[float] | None = None
        for factor, *size, name in test.contrast:
            losses = self.losses(models[size[0] if size else ""], name)
            if losses is None:
                return None
            part = [float(factor) * loss for loss in losses]
            total = part if total is None else [a + b for a, b in zip(total, part, strict=True)]
        return None if total is None else mean_interval(total)


def setting_of(model: str) -> Setting:
    return LARGE if model == SMOLLM2 else SMALL


def pairs(models: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Neighbours in size of each family."""
    there = set(models)
    for family in (LLAMA, OPT):
        sizes = [one for one in family if one in there]
        yield from pairwise(sizes)


def lines(bench: Bench, claim: Claim) -> Iterator[Line]:
    """Every test of a claim on every model or pair that it can be asked of."""
    for test in claim.tests:
        if test.sizes:
            for small, large in pairs(bench.models):
                if not test.equal_bytes or bench.alike_in_bytes(test, {"small": small, "large": large}):
                    yield Line(f"{small}, {large}", test, bench.contrast(test, {"small": small, "large": large}))
        else:
            for model in bench.models:
                if bench.width(model) > test.wider_than:
                    yield Line(model, test, bench.contrast(test, {"": model}))


def measure_missing(bench: Bench, only: list[str], again: bool) -> None:
    """Rows in the order of the claims, so that a table that is stopped early is whole at its top."""
    wanted = [name for claim in CLAIMS for test in claim.tests for name in sorted(test.rows)]
    for name in dict.fromkeys(wanted):
        for model in only:
            row = bench.row(model, name)
            if bench.store.read(row) is None or (again and bench.store.stale(row)):
                print(f"measuring {model}: {name}", file=sys.stderr, flush=True)
                _measure(bench.store, row)


def _measure(store: Store, row: Row) -> None:
    try:
        store.write(row, measure_losses(row))
    except QuantRecipeError as error:
        print(f"not measured: {error.line()}", file=sys.stderr, flush=True)


def summary(bench: Bench) -> Iterator[str]:
    """The findings, and how many of the tries came out how."""
    yield "| finding | source | held | did not hold | cannot tell | not measured |"
    yield "|---|---|--:|--:|--:|--:|"
    for claim in CLAIMS:
        outcomes = [line.outcome for line in lines(bench, claim)]
        counts = " | ".join(str(outcomes.count(one)) for one in (*OUTCOMES, None))
        yield f"| {claim.finding} | {claim.source} | {counts} |"


def details(bench: Bench) -> Iterator[str]:
    """Every try."""
    for claim in CLAIMS:
        yield from (
            "",
            f"### {claim.finding}",
            "",
            "| what is compared | model | difference | outcome |",
            "|---|---|--:|---|",
        )
        for line in lines(bench, claim):
            shown = MISSING if line.found is None else percent(line.found)
            yield f"| {line.test.says} | {line.where} | {shown} | {line.outcome or 'not measured'} |"


def models_of(args: argparse.Namespace) -> dict[str, str]:
    """Those that are there."""
    found = {"demo": "demo"}
    for name in (*LLAMA, *OPT) if args.family else ():
        folder = args.family / name
        if (folder / "finished").exists():
            found[name] = str(folder / "model")
    order = [*LLAMA, *OPT]
    models = {name: found[name] for name in order if name in found}
    return models | ({SMOLLM2: str(args.smollm2)} if args.smollm2 else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--family", type=Path, help="folder that tools/train_family.py filled")
    parser.add_argument("--smollm2", type=Path, help="folder of SmolLM2-135M")
    parser.add_argument("--only", nargs="+", help="models to measure now; all are shown")
    parser.add_argument("--again", action="store_true", help="measure anew what other code than this measured")
    parser.add_argument("--table", action="store_true", help="measure nothing, print what is there")
    parser.add_argument("--docs", type=Path, help="a page to put the tables into, where its marks are")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(Store(args.store), models_of(args))
    if not args.table:
        measure_missing(bench, args.only or list(bench.models), args.again)
    shown = "\n".join([*summary(bench), *details(bench)])
    print(shown)
    if args.docs:
        write_below(args.docs, "benchmarks/findings.py", shown)


if __name__ == "__main__":
    main()
