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

import torch
from native import quantize

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


def main() -> None:
    """Quantize once."""
    model, out, groups, sequences, length = sys.argv[1:]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    tokens = torch.randint(0, VOCABULARY, (int(sequences), int(length)), generator=torch.Generator().manual_seed(0))
    before, peak, cpu = memory()["RssAnon"], {}, time.process_time()
    with watched(peak):
        seconds = quantize(model, tokens, Path(out), json.loads(groups))
    report = {"seconds": seconds, "cpu_seconds": time.process_time() - cpu, "anonymous_before": before, **peak}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
