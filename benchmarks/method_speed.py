"""CPU seconds of every method per billion weights and per calibration token, and beside the peers that run here.

On the first blocks of a model, one thread. A method's time is a W + b W T for W weights and T calibration tokens: two
calibration sizes tell a from b. CPU seconds do not depend on who else is there; a peer's are those of its quantize
call (benchmarks/peers/NAME_speed.py, in that peer's environment), ours are the backend's whole call, files included.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from method_rows import METHODS, TRANSFORMS
from rows import MISSING
from safetensors import safe_open
from safetensors.torch import save_file

BLOCKS, LENGTH, SAMPLES = 2, 512, (8, 24)
#: Our row, and the peer's script and method it is set beside.
PEERS = {
    "hqq": "hqq w4a16-g64-asym",
    "torchao": "rtn w8a16",
    "gptqmodel": "gptq w4a16-g64",
    "autoround": "zq-local w4a16-g64",
}
ALLOWED = 3.0


def truncate(model: Path, blocks: int, out: Path) -> int:
    """A copy of a Llama-like model with its first blocks only; the weights of their matrices."""
    out.mkdir(parents=True, exist_ok=True)
    config = json.loads((model / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "num_hidden_layers": blocks}))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (out / name).write_bytes((model / name).read_bytes())
    kept: dict[str, torch.Tensor] = {}
    with safe_open(model / "model.safetensors", "pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            place = name.partition("model.layers.")[2].partition(".")[0]
            if not place or int(place) < blocks:
                kept[name] = file.get_tensor(name)
    save_file(kept, out / "model.safetensors", {"format": "pt"})
    return sum(tensor.numel() for name, tensor in kept.items() if ".layers." in name and tensor.dim() == 2)


def seconds_here(model: Path, quantization: dict[str, Any], tokens: torch.Tensor) -> float:
    """CPU seconds of the native backend's call."""
    from quantrecipe.modeling.folder import ModelFolder
    from quantrecipe.modeling.plan import make_plan
    from quantrecipe.modeling.skeleton import Skeleton
    from quantrecipe.plugins.contract import Job
    from quantrecipe.plugins.manager import backend
    from quantrecipe.recipe import Recipe
    from quantrecipe.runner.capability import choose_backend
    from quantrecipe.runner.engine_check import is_odd
    from quantrecipe.runner.progress import Quiet

    recipe = Recipe.model_validate({"model": {"id": str(model)}, "quantization": quantization})
    plan = make_plan(recipe, Skeleton(ModelFolder.open(model)).linears())
    form = choose_backend(recipe, is_odd(plan), "cpu")[1]
    with tempfile.TemporaryDirectory(prefix="speed-") as place:
        out, scratch = Path(place) / "out", Path(place) / "scratch"
        out.mkdir()
        scratch.mkdir()
        job = Job(recipe, model, out, plan, tokens, tokens[:1, :64], form, "cpu", Quiet(), scratch=scratch)
        began = time.process_time()
        backend("native").quantize(job)
        return time.process_time() - began


def seconds_of_peer(script: Path, python: str, model: Path, tokens: Path) -> float:
    """What the peer's script says; its last line is JSON."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    with tempfile.TemporaryDirectory(prefix="peer-") as place:
        command = [python, str(script), str(model), str(tokens)]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script.name} failed: {done.stderr.strip()[-800:]}")
    return float(json.loads(done.stdout.strip().splitlines()[-1])["cpu_seconds"])


@dataclass
class Speeds:
    """What was timed, kept in a file: CPU seconds by name and calibration samples."""

    file: Path

    def __post_init__(self) -> None:
        self.found: dict[str, float] = json.loads(self.file.read_text()) if self.file.exists() else {}

    def get(self, name: str, samples: int) -> float | None:
        return self.found.get(f"{name} @ {samples}")

    def put(self, name: str, samples: int, seconds: float) -> None:
        self.found[f"{name} @ {samples}"] = seconds
        self.file.write_text(json.dumps(self.found, indent=1) + "\n")


def measure(speeds: Speeds, model: Path, peers: dict[str, str], rows: list[str]) -> None:
    """Whatever is missing."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 49152, (SAMPLES[1], LENGTH), generator=generator)
    seconds_here(model, METHODS["gptq w4a16-g64"], tokens[:1])  # imports and compiled code
    for name in rows:
        for samples in SAMPLES if name in {**METHODS, **TRANSFORMS} else ():
            if speeds.get(name, samples) is None:
                speeds.put(name, samples, seconds_here(model, {**METHODS, **TRANSFORMS}[name], tokens[:samples]))
    with tempfile.TemporaryDirectory(prefix="speed-") as place:
        file = Path(place) / "tokens.json"
        file.write_text(json.dumps(tokens.tolist()))
        for name, python in peers.items():
            if speeds.get(f"peer {name}", SAMPLES[1]) is None:
                script = Path(__file__).parent / "peers" / f"{name}_speed.py"
                speeds.put(f"peer {name}", SAMPLES[1], seconds_of_peer(script, python, model, file))


def lines(speeds: Speeds, weights: int) -> Iterator[str]:
    """Two tables: every method, and those with a peer."""
    few, many = SAMPLES
    billions = weights / 1e9
    yield "| recipe | CPU s a billion weights | and 1000 calibration tokens more |"
    yield "|---|--:|--:|"
    for name in {**METHODS, **TRANSFORMS}:
        low, high = speeds.get(name, few), speeds.get(name, many)
        if low is None or high is None:
            yield f"| {name} | {MISSING} | {MISSING} |"
            continue
        slope = (high - low) / ((many - few) * LENGTH)
        fixed = high - slope * many * LENGTH
        yield f"| {name} | {max(fixed, 0) / billions:.0f} | {max(slope, 0) * 1000 / billions:.1f} |"
    yield from ("", "| recipe | CPU s | peer | its CPU s | ours against it | |", "|---|--:|---|--:|--:|---|")
    for peer, name in PEERS.items():
        ours, theirs = speeds.get(name, many), speeds.get(f"peer {peer}", many)
        if ours is None or theirs is None:
            yield f"| {name} | {MISSING} | {peer} | {MISSING} | {MISSING} | not measured |"
            continue
        ratio = ours / theirs
        verdict = f"more than {ALLOWED:g} times slower" if ratio > ALLOWED else ""
        yield f"| {name} | {ours:.1f} | {peer} | {theirs:.1f} | {ratio:.2f} | {verdict} |"


def report(store: Path, source: Path, peers: dict[str, str], rows: list[str]) -> str:
    """Measure what is missing, and show it. peers: interpreters by name. rows: of ours."""
    torch.set_num_threads(1)
    store.mkdir(parents=True, exist_ok=True)
    speeds = Speeds(store / f"speed-{source.name}.json")
    with tempfile.TemporaryDirectory(prefix="speed-") as place:
        model = Path(place) / source.name
        weights = truncate(source, BLOCKS, model)
        measure(speeds, model, peers, rows)
    head = f"{BLOCKS} blocks of {source.name}, {weights / 1e6:.1f} M weights, {SAMPLES[1]} x {LENGTH} tokens"
    return "\n".join([head, "", *lines(speeds, weights)])
