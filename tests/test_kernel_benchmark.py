"""benchmarks/kernels_cuda.py without a GPU: what it times is right, and every figure that is missing is listed."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

PARTS = ("cuda_cases", "cuda_timing", "cuda_products", "cuda_peers", "cuda_solver", "kernels_cuda")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend("benchmarks")
    return {name: importlib.import_module(name) for name in PARTS}


@pytest.fixture
def parts(benchmark: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The benchmark's modules, on the CPU, with small layers and a clock that runs each call once."""
    found = benchmark
    for module in found.values():
        for name, value in {"DEVICE": "cpu", "copies_of": lambda size: 2, "synchronize": lambda: None}.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    small = dict.fromkeys(("q", "k", "up", "down"), (256, 256))
    monkeypatch.setattr(found["cuda_cases"], "MODELS", {"8B": small, "70B": small})
    monkeypatch.setattr(found["cuda_timing"], "microseconds", run_each)
    monkeypatch.setattr(found["cuda_timing"], "copy_bandwidth", lambda: 1e9)
    return found


def run_each(calls: list[object]) -> float:
    for call in calls:
        assert torch.isfinite(call().float()).all()
    return 10.0


def test_products_that_are_timed_are_right_and_every_aim_is_judged(
    parts: dict[str, ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        case for case in parts["cuda_cases"].cases() if case.model == "8B" and case.layer == "q" and case.m < 100
    ]
    figures = parts["kernels_cuda"].measure(cases, peers=False)
    assert len(figures) == len(cases)
    lines = [figure.line() for figure in figures]
    assert any("1.00 (>= 1 x gemm_w8a8): reached" in line for line in lines)
    assert any("1.00 (>= 2.5 x cuBLAS bf16): **missed**" in line for line in lines)


def test_a_wrong_product_is_not_timed(parts: dict[str, ModuleType]) -> None:
    with pytest.raises(RuntimeError, match="relative error"):
        parts["cuda_products"].check(torch.ones(3), torch.ones(3) * 1.1)


def test_solver_runs(parts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    solver = parts["cuda_solver"]
    monkeypatch.setattr(solver, "microseconds", run_each)
    monkeypatch.setattr(solver, "copy_bandwidth", lambda: 1e9)
    monkeypatch.setattr(solver, "BLOCK", ((128, (64, 32)),))
    monkeypatch.setattr(solver, "TOKENS", 9000)
    assert solver.whole_pass() > 0 and solver.pack() > 0


def test_without_a_gpu_every_aim_is_listed_as_missing(
    benchmark: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = benchmark["kernels_cuda"].section()
    for aim in (
        "0.85 of copy bandwidth",
        ">= 2.5 x cuBLAS",
        ">= 3 x cuBLAS",
        ">= 1.5 x cuBLAS",
        "x gemm_w8a8",
        "< 300 s",
    ):
        assert aim in said
    assert all(case.kernel in said for case in benchmark["cuda_cases"].cases())


def test_the_list_of_missing_figures_in_the_docs_is_this_one(
    benchmark: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = (
        Path("docs/kernels.md").read_text().split("<!-- benchmarks/kernels_cuda.py -->")[1].split("<!-- end -->")[0]
    )
    assert said.strip() == benchmark["kernels_cuda"].section().strip()
