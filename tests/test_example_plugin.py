"""The example plugin: it keeps a backend's promises, and a fresh environment uses it from both commands."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "examples" / "plugin"
sys.path.insert(0, str(PLUGIN))

from quantrecipe_mseclip.backend import MseClip  # noqa: E402

from quantrecipe.testing import BackendConformance  # noqa: E402


class TestMseClip(BackendConformance):
    make_backend = MseClip
    group = {"scheme": "w8a16", "method": "rtn"}  # noqa: RUF012


@pytest.mark.slow
def test_a_fresh_environment_uses_it_from_both_commands(tmp_path: Path) -> None:
    binaries = _environment(tmp_path / "venv")
    qadvise, qrun = binaries / "qadvise", binaries / "qrun"
    (tmp_path / "r.yaml").write_text(
        "version: 1\nmodel: {id: demo}\nquantization: {backend: mseclip, config_groups: {main: w8a16}}\n"
        "evaluation: {perplexity: {sequence_length: 256, windows: 40}}\noutput: {path: out}\n"
    )
    assert "mseclip 0.1.0: ready" in _run(tmp_path, qrun, "backends")
    assert "hardly wants clipping" in _run(tmp_path, qadvise, "rules", "show", "mseclip/clip-int8-rows")
    advice = json.loads(
        _run(
            tmp_path,
            qadvise,
            "--model",
            "demo",
            "--mem",
            "1GB",
            "--max-loss",
            "0.5%",
            "--format",
            "json",
        )
    )
    assert advice["recommended"]
    _run(tmp_path, qrun, "r.yaml")
    assert "## Clipping" in (tmp_path / "out" / "report.md").read_text()


def _environment(folder: Path) -> Path:
    """quantrecipe and the plugin installed by pip; what they depend on comes from this environment."""
    venv.create(folder, with_pip=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    for source in (ROOT, PLUGIN):
        words = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", str(source)]
        subprocess.run(words, check=True, capture_output=True, text=True)
    return folder / "bin"


def _run(folder: Path, *words: object) -> str:
    done = subprocess.run([str(word) for word in words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
