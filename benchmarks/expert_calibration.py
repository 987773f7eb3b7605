"""Which calibration tokens an expert should see: those routed to it, or all. One model, GPTQ, paired windows.

    python tools/upcycle_demo_moe.py --texts TEXTS --out MODEL
    python benchmarks/expert_calibration.py MODEL --scheme w3a16-g64 --samples 8 32 128

Each row is compared with the original, and ``all`` with ``routed`` on the same calibration tokens.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
from pathlib import Path

import torch
from native import quantize
from quality import measured, percent
from transformers import AutoTokenizer

from quantrecipe.recipe import Calibration, Perplexity
from quantrecipe.runner.calibration import calibration_tokens
from quantrecipe.runner.evaluate import evaluation_windows
from quantrecipe.runner.intervals import mean_interval
from quantrecipe.runner.losses import WindowScores


def main() -> None:
    """Print a Markdown table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--scheme", default="w3a16-g64")
    parser.add_argument("--samples", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--windows", type=int, default=100)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    part = Perplexity(sequence_length=args.length, windows=args.windows)
    windows = evaluation_windows(part, tokenizer, None).tokens
    print("| calibration tokens | experts see | seconds | perplexity | against the original | against routed |")
    print("|--:|---|--:|--:|--:|--:|")
    row(args, torch.empty(0, args.length, dtype=torch.int64), windows, "rtn")
    for samples in args.samples:
        asked = Calibration(samples=samples, sequence_length=args.length)
        tokens = calibration_tokens(asked, tokenizer, None).tokens
        routed = row(args, tokens, windows, "routed")
        row(args, tokens, windows, "all", routed)


def row(
    args: argparse.Namespace,
    tokens: torch.Tensor,
    windows: torch.Tensor,
    way: str,
    before: WindowScores | None = None,
) -> WindowScores:
    """Quantize, measure, print."""
    out = Path(tempfile.mkdtemp(prefix="experts-")) / "out"
    given = tokens if len(tokens) else windows[:1]
    method, experts = ("rtn", "routed") if way == "rtn" else ("gptq", way)
    groups = {"main": {"scheme": args.scheme, "method": method}}
    seconds = quantize(args.model, given, out, groups, experts)
    found = measured(args.model, out, windows)
    shutil.rmtree(out.parent)
    change = mean_interval((found.quantized - found.original).tolist())
    step = mean_interval((found.quantized - before.quantized).tolist()) if before else None
    print(
        f"| {tokens.numel():,} | {way} | {seconds:.1f} | {math.exp(found.quantized.mean()):.3f} | {percent(change)} "
        f"| {percent(step) if step else ''} |",
        flush=True,
    )
    return found


if __name__ == "__main__":
    main()
