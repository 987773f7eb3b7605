"""``qrun kernels`` and ``qrun kernels build``, by a user without a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_compile import needs_nvrtc

from quantrecipe.kernels import compile as compiling
from quantrecipe.kernels.catalog import KERNELS
from quantrecipe.runner.cli import cli, main


@pytest.fixture(autouse=True)
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTRECIPE_CACHE", str(tmp_path))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def said(*words: str) -> str:
    return CliRunner().invoke(cli, ["kernels", *words], catch_exceptions=False).output


def failed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as exit:
        main(["kernels", *words])
    assert exit.value.code == 2
    return capsys.readouterr().err


@needs_nvrtc
def test_built_kernels_are_listed_with_what_they_use() -> None:
    assert "gptq_block  sm_80  1 not built" in said("--arch", "sm_80")
    assert "gptq_block  sm_80  1 compiled" in said("build", "gptq_block", "--arch", "sm_80")
    assert "gptq_block  sm_80  1 cached" in said("build", "gptq_block", "--arch", "sm_80")
    listed = {(one["kernel"], one["status"]): one for one in json.loads(said("--arch", "sm_80", "--format", "json"))}
    built = listed["gptq_block", "cached"]
    assert 32 <= built["registers"] <= 255 and built["spilled_bytes"] == 0 and built["dynamic_shared_bytes"] == 65536
    assert {name for name, _ in listed} == {kernel.name for kernel in KERNELS}
    assert "shown for sm_90" in said() and "1 not built" in said()


@needs_nvrtc
def test_variants_and_devices_that_are_too_old() -> None:
    assert "SCALAR=bf16 FP8=0 HELD=4: unsupported" in said("--arch", "sm_75", "--variants")
    assert "needs sm_80 or newer" in said("--arch", "sm_75")


def test_without_a_compiler_the_list_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling.nvrtc_version.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "cuda", None)
    assert "need NVRTC and cuda.core; pip install" in said()


def test_faults_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no GPU here; say for which: --arch sm_90" in failed(capsys, "build")
    assert "no architecture: 'ampere'; such as sm_80" in failed(capsys, "--arch", "ampere")
    assert "did you mean 'gptq_block'" in failed(capsys, "build", "gptq", "--arch", "sm_90")
    monkeypatch.setenv("QUANTRECIPE_CACHE", "off")
    assert "nothing is kept" in failed(capsys, "build", "--arch", "sm_90")
