"""The emulated kernels under AddressSanitizer and UBSan: every access lies in its tensor, vectors are aligned."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from emulation import needs_compiler

HERE = Path(__file__).parent
OUT_OF_BOUNDS = """
import numpy as np
from emulation import HERE, Emulated
held = np.zeros(32, np.int32)
Emulated(HERE / "probes" / "threads.cu", "reads_past")([1], [32], 0, held, np.zeros(32, np.int32))
"""


def sanitized(*command: str) -> subprocess.CompletedProcess[str]:
    found = [
        subprocess.run(
            ["g++", f"-print-file-name={name}.so"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan", "libubsan")
    ]
    if not all(map(os.path.isabs, found)):
        pytest.skip("g++ has no sanitizers")
    changed = {
        "LD_PRELOAD": " ".join(found),
        "EMULATOR_SANITIZE": "1",
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",  # the threads' stacks are ours
        "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
    }
    return subprocess.run(
        [sys.executable, *command], env=os.environ | changed, capture_output=True, text=True, check=False
    )


@needs_compiler
@pytest.mark.slow
def test_the_sanitizer_sees_an_access_past_the_end() -> None:
    done = sanitized("-c", OUT_OF_BOUNDS)
    assert done.returncode != 0 and "heap-buffer-overflow" in done.stderr and "reads_past" in done.stderr


@needs_compiler
@pytest.mark.slow
def test_kernels_stay_in_bounds() -> None:
    done = sanitized(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "emulated", "-m", "not slow and not gpu",
        *(str(path) for path in sorted(HERE.glob("test_*.py")) if path.name != Path(__file__).name),
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
