"""Outlier channels that the function does not notice (tools/inject_outliers.py), and who copes with them at W8A8.

    python benchmarks/outliers.py STORE demo --shift /path/to/opt-like

For each model, with and without the injection: the loss of each method against the original, over the same windows.
Recovered = the share of plain W8A8's loss (in nats a token) that a method wins back. Rows are kept in STORE, so that
a stopped run goes on.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rows import Row, Setting, Store, measure_losses, write_below

from quantrecipe.errors import QuantRecipeError
from tools.inject_outliers import inject

W8A8: dict[str, Any] = {"config_groups": {"main": "w8a8"}}
INT8: dict[str, Any] = {"num_bits": 8, "strategy": "channel"}
STATIC: dict[str, Any] = {
    "config_groups": {"main": {"weights": INT8, "input_activations": {"num_bits": 8, "symmetric": False}}},
    "format": "quantrecipe",
}
ROWS: dict[str, dict[str, Any]] = {
    "plain W8A8": W8A8,
    "plain W8A8, static scales": STATIC,
    "RPTQ, static scales": STATIC | {"transforms": ["rptq"]},
    "LLM.int8()": {"config_groups": {"main": {"scheme": "w8a8", "method": "llm-int8"}}, "format": "bitsandbytes"},
    "SmoothQuant, norms only": W8A8 | {"transforms": [{"name": "smoothquant", "places": "norms"}]},
    "SmoothQuant": W8A8 | {"transforms": ["smoothquant"]},
    "SmoothQuant, alpha searched": W8A8 | {"transforms": [{"name": "smoothquant", "alpha": "search"}]},
    "OS+, scales only": W8A8 | {"transforms": [{"name": "outlier-suppression-plus", "shift": False}]},
    "OS+": W8A8 | {"transforms": ["outlier-suppression-plus"]},
    "Hadamard": W8A8 | {"transforms": ["hadamard"]},
}


def attempt(store: Store, row: Row) -> float | str:
    """Nats a token that quantizing costs, or why this cannot be carried out."""
    found = store.read(row)
    if found is None:
        try:
            found = measure_losses(row)
        except QuantRecipeError as error:
            return error.line()
        except ValueError as error:
            return str(error).splitlines()[-1]
        store.write(row, found)
    before, after = found["original"], found["quantized"]
    return (math.fsum(after) - math.fsum(before)) / len(before)


def lines(store: Store, models: tuple[str, str], names: list[str], setting: Setting) -> Iterator[str]:
    """Every method on a model as it is, and with outliers."""
    plain: float | None = None
    for name in names:
        before, after = (attempt(store, Row(model, name, ROWS[name], setting)) for model in models)
        if isinstance(before, str) or isinstance(after, str):
            yield f"| {name} | {before if isinstance(before, str) else after} | | |"
            continue
        plain = after if plain is None else plain
        yield f"| {name} | {before:+.4f} | {after:+.4f} | {(plain - after) / plain:.1%} |"


def table(store: Store, model: str, shift: bool, names: list[str], setting: Setting) -> Iterator[str]:
    """One model, line by line."""
    with tempfile.TemporaryDirectory(prefix="outliers-") as place:
        disturbed = Path(place) / f"{Row(model, '', {}, setting).model_name}-outliers"
        count = inject(model, disturbed, shift)
        name = Row(model, "", {}, setting).model_name
        yield from ("", f"{name}: {count} channels made outliers{', some of them shifted' if shift else ''}", "")
        yield "| method | loss before, nats | with outliers | recovered |"
        yield "|---|--:|--:|--:|"
        yield from lines(store, (model, str(disturbed)), names, setting)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("models", nargs="*", help="models whose outliers are scales alone")
    parser.add_argument("--shift", action="append", default=[], help="a LayerNorm model: channels move as well")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--docs", type=Path, help="a page to put the tables into, where its marks are")
    args = parser.parse_args()
    torch.set_num_threads(1)
    store, setting = Store(args.store), Setting(32, 256, args.windows, 256)
    shown: list[str] = []
    for model, shift in [*((one, False) for one in args.models), *((one, True) for one in args.shift)]:
        for line in table(store, model, shift, args.rows, setting):
            print(line, flush=True)
            shown.append(line)
    if args.docs:
        write_below(args.docs, "benchmarks/outliers.py", "\n".join(shown).strip())


if __name__ == "__main__":
    main()
