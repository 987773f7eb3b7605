"""The native backend on calibration tokens, for benchmarks; as a command, one timed run.

python benchmarks/native.py MODEL TOKENS.json OUT BITS GROUP BATCH
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import make_plan
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.contract import Job
from quantrecipe.plugins.manager import backend
from quantrecipe.recipe import Recipe


def quantize(model: str, tokens: torch.Tensor, out: Path, groups: dict[str, Any], experts: str = "routed") -> float:
    """Quantize ``model`` into ``out`` as compressed-tensors; seconds of the backend's call, writing included.

    groups: the recipe's config_groups.
    """
    asked = {"quantization": {"config_groups": groups}, "calibration": {"experts": experts}}
    recipe = Recipe.model_validate({"model": {"id": model}, **asked})
    plan = make_plan(recipe, Skeleton(ModelFolder.open(model)).linears())
    out.mkdir(parents=True)
    silent = SimpleNamespace(start=lambda *_, **__: None, advance=lambda *_, **__: None, note=print)
    job = Job(recipe, Path(model), out, plan, tokens, tokens[:1, :64], "compressed-tensors", "cpu", silent)
    start = time.perf_counter()
    backend("native").quantize(job)
    return time.perf_counter() - start


def main() -> None:
    """One GPTQ run; the last line is JSON."""
    model, tokens, out, bits, group, _ = sys.argv[1:]
    torch.set_num_threads(2)
    windows = torch.tensor(json.loads(Path(tokens).read_text()))
    groups = {"main": {"scheme": f"w{bits}a16-g{group}", "method": "gptq"}}
    print(json.dumps({"quantize_seconds": quantize(model, windows, Path(out), groups)}))


if __name__ == "__main__":
    main()
