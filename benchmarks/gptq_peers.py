"""GPTQ against its peers: time, peak memory and perplexity, same tokens, scheme and threads, in one run.

    python benchmarks/gptq_peers.py FOLDER --peer gptqmodel=PYTHON --peer llmcompressor=PYTHON

PYTHON is the interpreter of an environment where that peer is installed (benchmarks/peers/README.md).
Every tool runs in a process of its own, one after the other; perplexity is measured by one evaluator
on the weights that each tool wrote, over the held-out text, paired with the original.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.recipe import Calibration, Perplexity
from quantrecipe.runner.calibration import calibration_tokens
from quantrecipe.runner.evaluate import Measures, convention_of, evaluation_windows, score, summarize
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.quantized import open_dequantized
from quantrecipe.runner.scorers import Streamed

HERE = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One tool's run: seconds of its quantize call, of the whole process, peak resident memory in MB."""

    tool: str
    quantize_seconds: float
    process_seconds: float
    peak_mb: float
    folder: Path


def run_tool(tool: str, python: str, args: argparse.Namespace, tokens: Path, out: Path) -> Outcome:
    """Run one tool under ``time``-like accounting; its last line of output is JSON."""
    script = HERE.parent / "native.py" if tool == "native" else HERE / f"{tool}_gptq.py"
    command = [python, str(script), args.model, str(tokens), str(out)]
    command += [str(args.bits), str(args.group), str(args.batch)]
    threads = {"OMP_NUM_THREADS": "2", "GPTQMODEL_CPU_WORKERS": "2", "HF_HUB_OFFLINE": "1", "NUMBA_NUM_THREADS": "2"}
    start = time.perf_counter()
    with (out.parent / f"{tool}.log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **threads})
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        log.seek(0)
        lines = log.read().strip().splitlines()
    if status:
        raise SystemExit(f"{tool} failed:\n" + "\n".join(lines[-15:]))
    quantize = json.loads(lines[-1])["quantize_seconds"]
    return Outcome(tool, quantize, seconds, usage.ru_maxrss / 1024, out)


def measure(args: argparse.Namespace, folder: Path) -> Measures:
    """Perplexity of what a tool wrote, paired with the original."""
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    part = Perplexity(sequence_length=args.length, windows=args.windows)
    given = evaluation_windows(part, tokenizer, None)
    original = Streamed(Skeleton(ModelFolder.open(args.model)))
    _, skeleton = open_dequantized(folder, original.skeleton.dtype)
    quantized = Streamed(skeleton, dtype=original.skeleton.dtype)
    scores = score(original, quantized, given.tokens, Quiet())
    return summarize(scores, given, convention_of(part, given, tokenizer, original.dtype, "cpu"))


def main() -> None:
    """Run all, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--peer", action="append", default=[], help="NAME=PYTHON")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--windows", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    part = Calibration(samples=args.samples, sequence_length=args.length)
    found = calibration_tokens(part, tokenizer, None)
    print(found.line(), flush=True)
    tools = [("native", sys.executable), *(peer.split("=", 1) for peer in args.peer)]
    folder = Path(tempfile.mkdtemp(prefix="gptq-peers-"))
    try:
        tokens = folder / "tokens.json"
        tokens.write_text(json.dumps(found.tokens.tolist()))
        outcomes = []
        for tool, python in tools:
            outcomes.append(run_tool(tool, python, args, tokens, folder / tool))
            print(outcomes[-1], flush=True)
        print_table(outcomes, [measure(args, outcome.folder) for outcome in outcomes])
    finally:
        shutil.rmtree(folder)


def print_table(outcomes: list[Outcome], measures: list[Measures]) -> None:
    """One row a tool; ratios against the first."""
    base = outcomes[0]
    print("| tool | quantize s | ratio | process s | peak MB | perplexity | increase (95 %) | KL |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for one, found in zip(outcomes, measures, strict=True):
        increase = found.increase
        print(
            f"| {one.tool} | {one.quantize_seconds:.0f} | {one.quantize_seconds / base.quantize_seconds:.2f} "
            f"| {one.process_seconds:.0f} | {one.peak_mb:.0f} | {found.quantized_perplexity:.3f} "
            f"| {increase.value:+.2%} ({increase.low:+.2%} … {increase.high:+.2%}) | {found.kl.value:.4f} |"
        )
    print(f"\noriginal perplexity {measures[0].perplexity:.3f}; {measures[0].convention}")


if __name__ == "__main__":
    main()
