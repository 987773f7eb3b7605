"""Products of quantized layers against bf16 and against torch's own kernels; a 4-bit model against its original.

    python benchmarks/kernels.py [--rows 1 4 16 64 256] [--shapes 4096x4096] [--threads 1] [--docs]
    python benchmarks/kernels.py --model QUANTIZED --against ORIGINAL [--threads 2] [--docs]

The CPU's table comes from kernels_cpu.py; --docs writes it, or the models' figures, into docs/kernels.md. Where a GPU
is, kernels_cuda.py runs as well.
"""

from __future__ import annotations

import argparse
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from kernels_cpu import table
from rows import write_below

DOCS = Path(__file__).parents[1] / "docs" / "kernels.md"
SHAPES = ["4096x4096", "1536x576", "576x576"]


def products(rows: list[int], shapes: list[str], seconds: float, only: str) -> str:
    """The CPU's table, printed as it comes."""
    lines = []
    for line in table(rows, [(int(n), int(k)) for n, k in (one.split("x") for one in shapes)], seconds, only):
        print(line, end="", flush=True)
        lines.append(line)
    return "".join(lines)


def models(quantized: Path, original: Path, pairs: int) -> str:
    """Tokens a second and memory of both, in turns."""
    from quantrecipe.modeling.heap import give_back
    from quantrecipe.runner.meter import anonymous_memory
    from quantrecipe.runner.serving import serve
    from quantrecipe.runner.speed import NEW, PROMPT, speed_ratios

    loaded, marks = [], [anonymous_memory() or 0]
    for folder in (quantized, original):
        loaded.append(serve(folder))
        give_back()
        marks.append(anonymous_memory() or 0)
    tokens = torch.arange(100, 164).unsqueeze(0)
    began = time.process_time()
    speed = speed_ratios(loaded[1].model, loaded[0].model, tokens, pairs)
    low, ratio, high = (math.exp(one) for one in statistics.quantiles(speed["log_ratios"], n=4))
    lines = ["| model | tokens/s | weights, MB | anonymous, MB | layers |\n|---|--:|--:|--:|---|"]
    for side, one, before, after in zip(("quantized", "original"), loaded, marks[:-1], marks[1:], strict=True):
        path = ", ".join(f"{row['layers']} {row['path']}" for row in one.to_json()) or "bf16"
        size = one.weight_bytes / 1e6
        lines.append(f"| {side} | {speed[side]:.1f} | {size:.1f} | {(after - before) / 1e6:.1f} | {path} |")
    lines.append(
        f"\nquantized / original: {ratio:.2f} times the tokens/s (quartiles {low:.2f} and {high:.2f} of {pairs} pairs"
        f" in turns; prompt of {PROMPT}, {NEW} new); threads: {torch.get_num_threads()};"
        f" {time.process_time() - began:.0f} CPU s\n"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="NxK")
    parser.add_argument("--only", default="", help="weights whose name begins so")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.1, help="CPU seconds a figure, at least")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.model is not None:
        text, mark = models(given.model, given.against, given.pairs), f"model, {given.threads} threads"
        print(text)
    else:
        text, mark = products(given.rows, given.shapes, given.seconds, given.only), "products"
    if given.docs:
        write_below(DOCS, f"benchmarks/kernels.py, {mark}", text)
    if given.model is None and torch.cuda.is_available():
        sys.exit(subprocess.run([sys.executable, Path(__file__).parent / "kernels_cuda.py"], check=False).returncode)


if __name__ == "__main__":
    main()
