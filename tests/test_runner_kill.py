"""Real kills and failing disks, by tools/kill_test.py in a process of its own; the whole of it is slow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "kill_test.py"


def _tool(*words: str) -> str:
    done = subprocess.run([sys.executable, str(TOOL), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_killed_run_goes_on_to_the_same_bytes() -> None:
    said = _tool("kill", "--points", "1", "--cases", "gptq", "--seed", "3")
    assert "3 attempts" in said
    assert "FAILED" not in said


@pytest.mark.slow
def test_twenty_kills_of_each_kind() -> None:
    said = _tool("kill", "--points", "20")
    assert "FAILED" not in said
    assert "200 SIGKILL" in said and "25 SIGINT" in said


@pytest.mark.slow
def test_every_write_may_fail() -> None:
    said = _tool("fault")
    assert "FAILED" not in said
