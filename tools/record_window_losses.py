"""Records real window losses of quantized models, for the simulations of the gates.

    python tools/record_window_losses.py tests/data/window_losses.npz NAME=FOLDER:SCHEME:METHOD:SEED[:DATASET] …

Each entry becomes two float32 arrays [windows] over all windows of the text, in their order: ``NAME/original``
and ``NAME/quantized``, the mean cross-entropy of each window in nats a token.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton, local_path
from quantrecipe.recipe import Recipe
from quantrecipe.runner.evaluate import evaluation_windows, score
from quantrecipe.runner.pipeline import run
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.quantized import open_dequantized
from quantrecipe.runner.scorers import Streamed
from quantrecipe.runner.tokens import load_tokenizer

LENGTH = 256


def recorded(model: str, scheme: str, method: str, seed: int, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Window losses of the original and of the model quantized with that calibration seed."""
    recipe = Recipe.model_validate(
        {
            "model": {"id": model},
            "quantization": {"config_groups": {"main": {"scheme": scheme, "method": method}}},
            "calibration": {"samples": 64, "sequence_length": LENGTH, "seed": seed},
            "evaluation": {"perplexity": None},
        }
    )
    folder = ModelFolder.open(local_path(model))
    tokenizer = load_tokenizer(folder.path)
    part = recipe.evaluation.model_copy().perplexity or Recipe.model_fields["evaluation"].default.perplexity
    given = evaluation_windows(
        part.model_copy(update={"sequence_length": LENGTH, "dataset": dataset}), tokenizer, None
    )
    with tempfile.TemporaryDirectory() as scratch:
        out = run(recipe, output=Path(scratch) / "out").output
        original = Streamed(Skeleton(folder))
        _, skeleton = open_dequantized(out, original.skeleton.dtype)
        scores = score(original, Streamed(skeleton, dtype=original.skeleton.dtype), given.tokens, Quiet())
    return scores.original.numpy().astype(np.float32), scores.quantized.numpy().astype(np.float32)


def main() -> None:
    """Record what the arguments name; entries that the file holds already are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("entries", nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(1)
    arrays = dict(np.load(args.file)) if args.file.exists() else {}
    for entry in args.entries:
        name, _, rest = entry.partition("=")
        model, scheme, method, seed, *dataset = rest.split(":", 4)
        first, second = recorded(model, scheme, method, int(seed), dataset[0] if dataset else "builtin")
        arrays |= {f"{name}/original": first, f"{name}/quantized": second}
        args.file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(args.file, **arrays)
        print(name, len(first), float((second - first).mean()), flush=True)


if __name__ == "__main__":
    main()
