"""Nothing generated is stale: compiled data, schemas, pages of the rules, outputs shown in docs/advisor.md."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "tools" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


STEPS = ("rules", "catalog", "tables", "schemas", "pages", "advisor")


def test_every_step_is_tested() -> None:
    assert tuple(generate().STEPS) == STEPS


@pytest.mark.parametrize("step", STEPS)
def test_nothing_is_stale(step: str) -> None:
    module = generate()
    assert not module.stale(module.STEPS[step]()), "run make docs"


def test_the_command_names_what_is_stale_and_unknown(tmp_path: Path) -> None:
    module = generate()
    module.STEPS["new"] = lambda: {ROOT / "docs" / "never-written.md": "text"}
    assert module.main(["--check", "new"]) == 1 and not (ROOT / "docs" / "never-written.md").exists()
    assert module.main(["nonsense"]) == 2
    done = subprocess.run(
        [sys.executable, "tools/generate.py", "--check", "tables"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
