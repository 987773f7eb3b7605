"""The estimate follows the work: twice the text, about twice the time of the part that depends on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from quantrecipe.plugins.contract import Estimates
from quantrecipe.plugins.native import bounded, estimate
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.units import format_seconds
from tests import families
from tests.native_jobs import make_job, tokens


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part that is timed takes one second."""

    def second(work: Any) -> float:
        work()
        return 1.0

    monkeypatch.setattr(estimate, "_seconds", second)


def _seconds(tmp_path: Path, group: Any, sequences: int, **more: Any) -> float:
    model = tmp_path / "model"
    if not model.exists():
        families.make_model("llama", model)
    job = make_job(model, tmp_path / "out", {"main": group}, calibration=tokens(sequences, 64))
    backend = NativeBackend()
    assert isinstance(backend, Estimates)
    return backend.estimate(dataclasses.replace(job, **more))


@pytest.mark.usefixtures("ticks")
def test_what_is_counted(tmp_path: Path) -> None:
    gptq = {"scheme": "w4a16-g32", "method": "gptq"}
    # 3 blocks: loading, 7 layers solved (factors are 1 - 1); a batch: a forward pass, 4 inputs added to Hessians
    assert _seconds(tmp_path, gptq, 32) == 3 * (1 + 7 + 1 * (1 + 4))
    assert _seconds(tmp_path, gptq, 64) == 3 * (1 + 7 + 2 * (1 + 4))
    assert _seconds(tmp_path, gptq, 64, spill=True) == 3 * (1 + 7 + 2 * (5 + 4))
    assert _seconds(tmp_path, "w8a8", 64) == 3 * (1 + 7)
    zq = {"scheme": "w4a16-g32", "method": {"name": "zq-global", "steps": 5, "batch": 40}}
    # 5 steps of 2 batches, each three forward passes and 7 roundings; 10 judgements of a batch; both streams go on
    assert _seconds(tmp_path, zq, 64) == 3 * (1 + 5 * 2 * (3 + 7) + (10 * 1 + 2 * 2))
    assert _seconds(tmp_path, "w4a16-g32", 64) == 3 * (1 + 7 / torch.get_num_threads())


def test_groups_are_the_layers_that_share_an_input() -> None:
    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.o = (torch.nn.Linear(8, 8) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.o(self.q(x) + self.k(x))
            return y

    block = Block()
    layers = {"o": block.o, "k": block.k, "q": block.q}
    assert bounded.groups_of(block, torch.randn(2, 8), layers) == [["q", "k"], ["o"]]


@pytest.mark.parametrize(("seconds", "text"), [(0.12, "0.1 s"), (12.4, "12 s"), (120, "2 min"), (20000, "5.6 h")])
def test_times_read_well(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
