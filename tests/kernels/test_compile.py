"""Every kernel compiles for every architecture without a warning or a spill; the cache; errors in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from quantrecipe.errors import BackendError, QuantRecipeError
from quantrecipe.kernels import compile as compiling
from quantrecipe.kernels.catalog import ARCHITECTURES, KERNELS, SHARED_LIMIT, SOURCES, Variant, variant
from quantrecipe.kernels.compile import Compiled, cached, compile_variant, entry_of
from quantrecipe.kernels.source import whole_text


def has_compiler() -> bool:
    try:
        compiling.nvrtc_version()
    except BackendError:
        return False
    return True


needs_nvrtc = pytest.mark.skipif(not has_compiler(), reason="no NVRTC: pip install 'quantrecipe[cuda]'")
EVERYTHING = [one for kernel in KERNELS for one in kernel.variants()]
QUICK = [next(kernel.variants()) for kernel in KERNELS if kernel.name in ("quantize_pack", "gptq_block")]


def check(one: Variant, sm: int) -> None:
    """Registers for a whole block, no spills, no stack, shared memory that every such device has."""
    report = compile_variant(one, sm).report
    assert report.warnings == () and (report.spilled, report.stack) == (0, 0), report
    assert 0 < -(-report.registers // 8) * 8 * one.kernel.threads <= 65536
    assert report.shared + one.kernel.shared <= SHARED_LIMIT[sm]


@needs_nvrtc
@pytest.mark.parametrize("one", QUICK, ids=lambda one: one.label)
def test_representative_kernels_compile(one: Variant) -> None:
    check(one, 90)


@needs_nvrtc
@pytest.mark.slow
@pytest.mark.parametrize("sm", ARCHITECTURES)
@pytest.mark.parametrize("one", EVERYTHING, ids=lambda one: one.label)
def test_every_kernel_compiles(one: Variant, sm: int) -> None:
    check(one, sm)


def test_every_source_is_in_the_catalogue() -> None:
    assert {kernel.file for kernel in KERNELS} == {path.name for path in SOURCES.glob("*.cu")}


def test_inline_assembly_is_in_one_file() -> None:
    found = {
        path.name for path in SOURCES.iterdir() if "asm(" in path.read_text() or "asm volatile" in path.read_text()
    }
    assert found == {"ptx.cuh"}


def test_a_source_is_one_text_with_each_header_once() -> None:
    text = whole_text(SOURCES / "quantize_pack.cu")
    assert text.count("struct f16 {") == 1 and "#pragma once" not in text and '#include "teams.cuh"' not in text


@needs_nvrtc
def test_the_cache_is_read_and_a_damaged_entry_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTRECIPE_CACHE", str(tmp_path))
    one = variant("gptq_block")
    made = compile_variant(one, 80)
    kept = compile_variant(one, 80)
    assert (made.cached, kept.cached) == (False, True)
    assert (kept.cubin, kept.report) == (made.cubin, made.report) and made.cubin.startswith(b"\x7fELF")
    entry = entry_of(one, 80)
    assert entry is not None and cached(one, 80) == kept and cached(one, 90) is None
    entry.write_bytes(made.cubin[:-1] + b"x")
    assert cached(one, 80) is None
    assert compile_variant(one, 80) == Compiled(made.cubin, made.report, cached=False)
    assert sorted(path.suffix for path in entry.parent.iterdir()) == [".cubin", ".json"]


@needs_nvrtc
def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kernels").write_text("a file where the folder should be")
    monkeypatch.setenv("QUANTRECIPE_CACHE", str(tmp_path))
    assert compile_variant(variant("quantize_activation", SCALAR="f16", FP8=0, HELD=2), 90).cubin


def test_wrong_names_say_what_there_is() -> None:
    with pytest.raises(QuantRecipeError, match="no such kernel: 'gptq_blok'; did you mean 'gptq_block'"):
        variant("gptq_blok")
    with pytest.raises(QuantRecipeError, match=r"BITS of 2\|3\|4"):
        variant("quantize_pack", SCALAR="f16", FP8=0, HELD=2, BITS=7)


def test_devices_that_are_too_old_are_refused() -> None:
    with pytest.raises(BackendError, match="gptq_block does not run on this device: 'sm_75'; sm_80 or newer"):
        compile_variant(variant("gptq_block"), 75)


@needs_nvrtc
def test_nvrtc_of_another_cuda_than_torchs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "torch_cuda_major", lambda: 11)
    compiling.nvrtc_version.cache_clear()
    with pytest.raises(BackendError, match=r"NVRTC is of another CUDA: '1\d\.\d'; torch is of CUDA 11.*pip install"):
        compiling.nvrtc_version()
    compiling.nvrtc_version.cache_clear()


def test_without_cuda_core_the_remedy_is_named() -> None:
    code = "import sys; sys.modules['cuda'] = None\nfrom quantrecipe.kernels.compile import nvrtc_version\n"
    code += "try:\n    nvrtc_version()\nexcept Exception as error:\n    print(type(error).__name__, error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("BackendError CUDA kernels need NVRTC and cuda.core; pip install")


@needs_nvrtc
def test_an_error_of_the_compiler_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gptq_block.cu").write_text('extern "C" __global__ void gptq_block() { nonsense; }\n')
    monkeypatch.setattr("quantrecipe.kernels.catalog.SOURCES", tmp_path)
    with pytest.raises(
        BackendError, match=r"gptq_block does not compile for sm_90; .*nonsense.* is undefined"
    ) as caught:
        compile_variant(variant("gptq_block"), 90)
    assert "\n" not in str(caught.value)
