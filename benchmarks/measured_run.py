"""One run of the native backend in a process of its own, with its peak memory; the last line is JSON.

python benchmarks/measured_run.py MODEL OUT GROUPS.json SEQUENCES LENGTH
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from native import quantize

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import make_plan
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.manager import backend
from quantrecipe.recipe import Recipe
from quantrecipe.runner.preflight import plan_needs

STATUS = Path("/proc/self/status")
VOCABULARY = 4096


def memory() -> dict[str, int]:
    """Bytes now: anonymous, mapped from files, and the most that was ever resident."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return {name: int(lines[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile", "VmHWM")}


@contextmanager
def watched(peak: dict[str, int], every: float = 0.01) -> Iterator[None]:
    """Within, ``peak`` holds the most of each that a look every 10 ms saw."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every):
            for name, size in memory().items():
                peak[name] = max(peak.get(name, 0), size)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def foreseen(model: str, groups: dict[str, Any], tokens: int) -> int:
    """Bytes of memory that pre-flight would have said."""
    calibration = {"samples": 1, "sequence_length": tokens}
    asked = {"model": {"id": model}, "quantization": {"config_groups": groups}, "calibration": calibration}
    recipe, skeleton = Recipe.model_validate(asked), Skeleton(ModelFolder.open(model))
    plan = make_plan(recipe, skeleton.linears())
    return plan_needs(recipe, plan, skeleton, backend("native"), "cpu").total_memory


def main() -> None:
    """Quantize once."""
    model, out, groups, sequences, length = sys.argv[1:]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    tokens = torch.randint(0, VOCABULARY, (int(sequences), int(length)), generator=torch.Generator().manual_seed(0))
    before, peak, cpu = memory()["RssAnon"], {}, time.process_time()
    with watched(peak):
        seconds = quantize(model, tokens, Path(out), json.loads(groups))
    used = time.process_time() - cpu
    said = foreseen(model, json.loads(groups), int(sequences) * int(length))
    report = {"seconds": seconds, "cpu_seconds": used, "anonymous_before": before, "foreseen": said, **peak}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
