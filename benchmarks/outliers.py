"""Outlier channels that the function does not notice (tools/inject_outliers.py), and who copes with them at W8A8.

    python benchmarks/outliers.py demo --shift /path/to/opt-like

For each model, with and without the injection: the loss of each method against the original, over the same windows.
Recovered = the share of plain W8A8's loss (in nats a token) that a method wins back.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import torch

from quantrecipe.errors import QuantRecipeError
from quantrecipe.recipe import Recipe
from quantrecipe.runner.pipeline import run
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


def loss(model: Path | str, quantization: dict[str, Any], windows: int) -> float:
    """Nats a token that quantizing costs."""
    recipe = Recipe.model_validate(
        {
            "model": {"id": str(model)},
            "quantization": quantization,
            "calibration": {"samples": 32, "sequence_length": 256},
            "evaluation": {"perplexity": {"sequence_length": 256, "windows": windows}},
        }
    )
    with tempfile.TemporaryDirectory(prefix="outliers-") as place:
        measures = run(recipe, output=Path(place) / "out").measures
    assert measures is not None
    return math.log(measures.quantized_perplexity / measures.perplexity)


def attempt(model: Path | str, quantization: dict[str, Any], windows: int) -> float | str:
    """The loss, or why this cannot be carried out."""
    try:
        return loss(model, quantization, windows)
    except QuantRecipeError as error:
        return error.line()
    except ValueError as error:
        return str(error).splitlines()[-1]


def table(model: str, shift: bool, windows: int, rows: list[str]) -> None:
    """One model: every method on it as it is, and with outliers."""
    with tempfile.TemporaryDirectory(prefix="outliers-") as place:
        disturbed = Path(place) / "model"
        count = inject(model, disturbed, shift)
        print(f"\n{model}: {count} channels made outliers{', some of them shifted' if shift else ''}\n")
        print("| method | loss before, nats | with outliers | recovered |")
        print("|---|--:|--:|--:|", flush=True)
        plain: float | None = None
        for name in rows:
            before, after = (attempt(one, ROWS[name], windows) for one in (model, disturbed))
            if isinstance(before, str) or isinstance(after, str):
                print(f"| {name} | {before if isinstance(before, str) else after} | | |", flush=True)
                continue
            plain = after if plain is None else plain
            share = (plain - after) / plain
            print(f"| {name} | {before:+.4f} | {after:+.4f} | {share:.1%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="models whose outliers are scales alone")
    parser.add_argument("--shift", action="append", default=[], help="a LayerNorm model: channels move as well")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    args = parser.parse_args()
    torch.set_num_threads(2)
    for model in args.models:
        table(model, False, args.windows, args.rows)
    for model in args.shift:
        table(model, True, args.windows, args.rows)


if __name__ == "__main__":
    main()
