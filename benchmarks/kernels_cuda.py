"""CUDA kernels against cuBLAS bf16 and their peers, at the aims they were written for.

    python benchmarks/kernels_cuda.py [--only gemm_w4a16] [--models 8B] [--no-peers]

Weights go around more than 256 MB of buffers, calls are replayed from a CUDA graph, a figure is the median of
30 replays. Without a GPU it prints the figures that are missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from cuda_cases import Case, cases

HEAD = "| product | us | GB/s | TFLOP/s | x bf16 | against its aim | peers, us |\n|---|--:|--:|--:|--:|---|---|\n"


@dataclass(frozen=True, slots=True)
class Figure:
    """One case. peers: microseconds, or what was missing."""

    case: Case
    microseconds: float
    bytes: int
    bf16: float
    reached: float
    peers: dict[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """A row of the table."""
        n, k = self.case.shape
        rates = self.bytes / self.microseconds / 1e3, 2 * self.case.m * n * k / self.microseconds / 1e6
        verdict = f"{self.reached:.2f} ({self.case.aim})"
        if self.case.least is not None:
            verdict += ": reached" if self.reached >= self.case.least else ": **missed**"
        peers = ", ".join(f"{name} {said}" for name, said in self.peers.items())
        numbers = f"{self.microseconds:.1f} | {rates[0]:.0f} | {rates[1]:.0f} | {self.bf16 / self.microseconds:.2f}"
        return f"| {self.case.label} | {numbers} | {verdict} | {peers} |"


def measure(chosen: Iterable[Case], peers: bool) -> list[Figure]:
    """On the current GPU; prints every figure as it comes."""
    from cuda_products import bf16, ours
    from cuda_timing import copy_bandwidth, microseconds

    bandwidth, base, found = copy_bandwidth(), {}, {}
    print(f"copy bandwidth {bandwidth / 1e9:.0f} GB/s", flush=True)
    for case in chosen:
        key = (case.shape, case.m)
        base[key] = base.get(key) or microseconds(bf16(case))
        calls, size = ours(case)
        took = microseconds(calls)
        del calls
        w8a8 = found.get(("gemm_w8a8", *key))
        reached = {
            "bandwidth": size / took * 1e6 / bandwidth,
            "bf16": base[key] / took,
            "w8a8": (w8a8.microseconds if w8a8 else _w8a8(case)) / took,
        }
        beside = _peers(case) if peers else {}
        figure = Figure(case, took, size, base[key], reached[case.measure], beside)
        found[case.kernel, *key] = figure
        print(figure.line(), flush=True)
    return list(found.values())


def _w8a8(case: Case) -> float:
    from cuda_products import BUILDERS
    from cuda_timing import microseconds

    return microseconds(BUILDERS["gemm_w8a8"](case)[0]) if case.measure == "w8a8" else float("nan")


def _peers(case: Case) -> dict[str, str]:
    from cuda_peers import PEERS
    from cuda_timing import microseconds

    found = {}
    for name, build in PEERS.get(case.kernel, {}).items():
        try:
            found[name] = f"{microseconds(build(case)):.1f}"
        except (ImportError, RuntimeError, NotImplementedError) as error:
            found[name] = f"none ({str(error).splitlines()[0][:60]})"
        torch.cuda.empty_cache()
    return found


def missing(chosen: Iterable[Case]) -> list[str]:
    """A line for each kernel and aim that no GPU has measured: rows of M and shapes together."""
    held: dict[tuple[str, str], dict[str, None]] = {}
    for case in chosen:
        n, k = case.shape
        held.setdefault((case.kernel, case.aim), {})[f"M={case.m} {n} x {k}"] = None
    return [f"{kernel}, {aim}: {len(shapes)} figures ({_span(shapes)})" for (kernel, aim), shapes in held.items()]


def _span(shapes: Iterable[str]) -> str:
    rows = sorted({int(shape.split()[0][2:]) for shape in shapes})
    return f"M = {', '.join(map(str, rows))}"


def section(only: str = "", models: tuple[str, ...] = ("8B", "70B"), peers: bool = True) -> str:
    """Markdown: the table, or what is missing."""
    chosen = [case for case in cases() if case.kernel.startswith(only) and case.model in models]
    solver = "solver".startswith(only)
    if not torch.cuda.is_available():
        found = [*missing(chosen), *(solver_missing() if solver else [])]
        lines = "".join(f"- {line}\n" for line in found)
        return f"Not measured, for want of a GPU; `python benchmarks/kernels_cuda.py` measures all of it:\n\n{lines}"
    from cuda_timing import described

    about = described()
    print(about, flush=True)
    rows = [figure.line() for figure in measure(chosen, peers)]
    return "\n".join([about, "", HEAD + "\n".join(rows), "", *(solver_lines() if solver else []), ""])


def solver_lines() -> list[str]:
    """quantize_pack and GPTQ, measured."""
    from cuda_solver import lines

    return lines()


def solver_missing() -> list[str]:
    """The same, not measured."""
    from cuda_solver import AIMS

    return [f"{aim.name}, {aim.wanted} {aim.unit}" for aim in AIMS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="kernels whose name begins so, or solver")
    parser.add_argument("--models", nargs="+", default=["8B", "70B"], choices=["8B", "70B"])
    parser.add_argument("--no-peers", action="store_true")
    given = parser.parse_args()
    print(section(given.only, tuple(given.models), not given.no_peers))


if __name__ == "__main__":
    main()
