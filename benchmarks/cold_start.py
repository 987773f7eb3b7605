"""Whole-process time of qadvise over the floor: what its interpreter and four imports take. Interleaved, medians.

    python benchmarks/cold_start.py [--runs 15] [--check]

--check fails where a command is over its limit (1.5 times the floor; 2.5 times for a family).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FLOOR = (
    "import click, yaml; from pydantic import BaseModel; import pluggy; "
    "from importlib.metadata import entry_points; entry_points(group='quantrecipe')"
)
ONE, FAMILY = 1.5, 2.5
RECIPE = str(Path(tempfile.gettempdir()) / "cold_start_recipe.yaml")
COMMANDS: dict[str, tuple[float, list[str]]] = {
    "one model": (ONE, ["--model", "bloom-7b1", "--mem", "10GB"]),
    "recipe": (ONE, ["--model", "bloom-7b1", "--mem", "10GB", "-o", RECIPE]),
    "largest": (ONE, ["--model", "bloom-176b", "--mem", "80GB"]),
    "JSON": (ONE, ["--model", "llama-3.1-8b", "--mem", "24GB", "--format", "json"]),
    "Markdown": (ONE, ["--model", "qwen2.5-7b", "--mem", "8GB", "--format", "markdown"]),
    "explain": (ONE, ["--model", "opt-66b", "--hardware", "a100-80gb", "--objective", "throughput", "--explain"]),
    "engine": (ONE, ["--model", "llama-3-70b", "--hardware", "rtx-4090", "--gpus", "2", "--engine", "vllm"]),
    "max loss": (ONE, ["--model", "llama-2-13b", "--mem", "24GB", "--max-loss", "1%"]),
    "what if": (ONE, ["--model", "mixtral-8x7b", "--mem", "32GB", "--what-if"]),
    "or smaller": (ONE, ["--model", "bloom-7b1", "--mem", "10GB", "--or-smaller"]),
    "maximize": (ONE, ["--model", "llama-3.1-8b", "--mem", "24GB", "--maximize", "context"]),
    "nothing fits": (ONE, ["--model", "llama-3.1-405b", "--mem", "24GB"]),
    "engine's release": (ONE, ["--model", "llama-3-8b", "--mem", "8GB", "--engine", "vllm@0.25"]),
    "llama.cpp": (ONE, ["--model", "llama-3-8b", "--mem", "8GB", "--engine", "llama.cpp"]),
    "offload": (ONE, ["--model", "llama-3-70b", "--hardware", "rtx-4090", "--offload", "30GB"]),
    "throughput": (ONE, ["--model", "opt-30b", "--hardware", "a100-80gb", "--objective", "throughput"]),
    "batch": (ONE, ["--model", "llama-3.1-8b", "--mem", "24GB", "--maximize", "batch"]),
    "accuracy": (ONE, ["predict", "--model", "opt-30b", "--scheme", "w4a16", "--metric", "accuracy"]),
    "memory": (ONE, ["memory", "--model", "llama-3-70b", "--scheme", "w4a16-g128", "--what-if"]),
    "tokenizers": (FAMILY, ["--family", "llama-2,llama-3,llama,mistral", "--mem", "16GB"]),
    "family": (FAMILY, ["--family", "pythia", "--mem", "8GB"]),
}


# An installed package has its bytecode; a checkout gets it on the first run, unless the environment forbids it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False, env=ENVIRONMENT)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)}: {done.stderr.decode()}")
    return time.perf_counter() - start


def measure(runs: int) -> dict[str, float]:
    """Median seconds of the floor and of each command, taken in turn so that load hits all alike."""
    cases = {"floor": [sys.executable, "-c", FLOOR]}
    cases |= {name: [sys.executable, "-m", "quantrecipe.advisor.cli", *args] for name, (_, args) in COMMANDS.items()}
    times: dict[str, list[float]] = {name: [] for name in cases}
    for command in cases.values():
        seconds(command)
    for _ in range(runs):
        for name, command in cases.items():
            times[name].append(seconds(command))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    medians = measure(args.runs)
    floor = medians.pop("floor")
    over = [name for name, value in medians.items() if value / floor > COMMANDS[name][0]]
    if args.json:
        print(json.dumps({"floor": floor, **medians}))
        return int(bool(over) and args.check)
    print(f"floor {floor * 1000:.0f} ms (median of {args.runs})")
    for name, value in medians.items():
        mark = "over" if name in over else ""
        print(f"{name:14} {value * 1000:6.0f} ms  {value / floor:.2f} x  (limit {COMMANDS[name][0]}) {mark}")
    return int(bool(over) and args.check)


if __name__ == "__main__":
    raise SystemExit(main())
