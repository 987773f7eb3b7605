"""GPTQ by quantrecipe's native backend: native_gptq.py MODEL TOKENS.json OUT BITS GROUP BATCH."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import make_plan
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.contract import Job
from quantrecipe.plugins.manager import backend
from quantrecipe.recipe import Recipe


def main() -> None:
    """Quantize and write; print the seconds of the backend's call as the last line of JSON."""
    model_path, tokens_path, out, bits, group, _ = sys.argv[1:]
    torch.set_num_threads(2)
    tokens = torch.tensor(json.loads(Path(tokens_path).read_text()))
    groups = {"main": {"scheme": f"w{bits}a16-g{group}", "method": "gptq"}}
    recipe = Recipe.model_validate({"model": {"id": model_path}, "quantization": {"config_groups": groups}})
    plan = make_plan(recipe, Skeleton(ModelFolder.open(model_path)).linears())
    Path(out).mkdir(parents=True)
    silent = SimpleNamespace(start=lambda *_, **__: None, advance=lambda *_, **__: None, note=print)
    job = Job(recipe, Path(model_path), Path(out), plan, tokens, tokens[:1, :64], "compressed-tensors", "cpu", silent)
    start = time.perf_counter()
    backend("native").quantize(job)
    print(json.dumps({"quantize_seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
