"""Timing on a GPU: graph replays over more buffers than any cache holds, and what a figure needs beside it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from statistics import median

import torch
from cuda_cases import DEVICE

ROTATED = 256 * 10**6  # bytes: five times the greatest L2 (H100: 50 MB)
REPLAYS, WARM = 25, 5

Call = Callable[[], torch.Tensor]


def copies_of(size: int) -> int:
    """How many buffers of ``size`` bytes a timing goes around."""
    return max(2, -(-ROTATED // size))


def microseconds(calls: Sequence[Call]) -> float:
    """Of one call: the median replay of a graph of all calls, divided by their number."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # compiles, and makes what the kernels keep for this stream
        for call in calls[:2]:
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for call in calls:
            call()
    return median(_replay(graph) for _ in range(REPLAYS + WARM)) / len(calls)


def _replay(graph: torch.cuda.CUDAGraph) -> float:
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    graph.replay()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) * 1000


def synchronize() -> None:
    """Until the device is done."""
    torch.cuda.synchronize()


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of torch's copy of a gigabyte."""
    source = torch.empty(2**30, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * source.numel() / microseconds([lambda: target.copy_(source)] * 2) * 1e6


def described() -> str:
    """The device, its clocks and limits as nvidia-smi says, and the versions that ran."""
    asked = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,ecc.mode.current"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        found = f"{torch.cuda.get_device_name()}, clocks unknown (no nvidia-smi)"
    return f"{found} ({asked}); torch {torch.__version__}, CUDA {torch.version.cuda}"
