"""What schemes and methods cost on one model: same calibration tokens, same held-out windows, paired.

    python benchmarks/quality.py FOLDER w8a16:rtn w4a16-g64:rtn w4a16-g64:gptq

Each row is compared with the original, and each but the first with the row before it.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
from pathlib import Path

import torch
from native import quantize
from transformers import AutoTokenizer

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton, local_path
from quantrecipe.recipe import Calibration, Perplexity
from quantrecipe.runner.calibration import calibration_tokens
from quantrecipe.runner.evaluate import evaluation_windows, score
from quantrecipe.runner.intervals import Interval, mean_interval
from quantrecipe.runner.losses import WindowScores
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.quantized import open_dequantized
from quantrecipe.runner.scorers import Streamed


def percent(found: Interval) -> str:
    """A mean difference of losses as a relative increase of perplexity with its interval."""
    low, high = (math.expm1(x) if x is not None else math.nan for x in (found.low, found.high))
    return f"{math.expm1(found.value):+.2%} ({low:+.2%} … {high:+.2%})"


def measured(model: str, folder: Path, tokens: torch.Tensor) -> WindowScores:
    """Window losses of the original and of what lies in ``folder``."""
    original = Streamed(Skeleton(ModelFolder.open(model)))
    _, skeleton = open_dequantized(folder, original.skeleton.dtype)
    return score(original, Streamed(skeleton, dtype=original.skeleton.dtype), tokens, Quiet())


def main() -> None:
    """Print a Markdown table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("rows", nargs="+", help="SCHEME:METHOD, or SCHEME:gptq:ACTORDER")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--windows", type=int, default=120)
    parser.add_argument("--dataset", default="builtin")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = str(local_path(args.model))
    tokenizer = AutoTokenizer.from_pretrained(model)
    calibration = calibration_tokens(Calibration(samples=args.samples, sequence_length=args.length), tokenizer, None)
    part = Perplexity(dataset=args.dataset, sequence_length=args.length, windows=args.windows)
    given = evaluation_windows(part, tokenizer, None)
    print(f"{calibration.line()}; measured on {tuple(given.tokens.shape)} tokens of {args.dataset}\n")
    print("| scheme | method | seconds | perplexity | against the original | against the row before | KL |")
    print("|---|---|--:|--:|--:|--:|--:|")
    before: WindowScores | None = None
    for row in args.rows:
        scheme, method, *actorder = row.split(":")
        order = {"actorder": None if actorder == ["none"] else actorder[0]} if actorder else {}
        out = Path(tempfile.mkdtemp(prefix="quality-")) / "out"
        seconds = quantize(
            model, calibration.tokens, out, {"main": {"scheme": scheme, "method": {"name": method, **order}}}
        )
        found = measured(model, out, given.tokens)
        shutil.rmtree(out.parent)
        change = mean_interval((found.quantized - found.original).tolist())
        step = mean_interval((found.quantized - before.quantized).tolist()) if before else None
        name = " ".join([method, *actorder])
        print(
            f"| {scheme} | {name} | {seconds:.1f} | {math.exp(found.quantized.mean()):.3f} | {percent(change)} "
            f"| {percent(step) if step else ''} | {found.kl.mean():.4f} |",
            flush=True,
        )
        before = found
    if before:
        print(f"\noriginal perplexity {math.exp(before.original.mean()):.3f}")


if __name__ == "__main__":
    main()
