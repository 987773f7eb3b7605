"""The conformance kit: our own backend keeps every promise, and each lie is found by its check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import lying_backends as liars
import pytest
import torch

from quantrecipe.plugins.contract import Backend
from quantrecipe.plugins.manager import backend
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.testing import BackendConformance, tiny_model


class TestNativeRtn(BackendConformance):
    make_backend = NativeBackend


@pytest.mark.slow
class TestNativeGptq(BackendConformance):
    make_backend = NativeBackend
    group: ClassVar = {"scheme": "w4a16-g32", "method": "gptq"}


def gptqmodel() -> Backend:
    return backend("gptqmodel")


def autogptq() -> Backend:
    return backend("autogptq")


def bitsandbytes() -> Backend:
    return backend("bitsandbytes")


def torchao() -> Backend:
    return backend("torchao")


def llmcompressor() -> Backend:
    return backend("llmcompressor")


def hqq() -> Backend:
    return backend("hqq")


def quanto() -> Backend:
    return backend("quanto")


def auto_round() -> Backend:
    return backend("auto-round")


def gguf() -> Backend:
    return backend("gguf")


@pytest.mark.slow
class TestAutoRound(BackendConformance):
    make_backend = auto_round
    group: ClassVar = {"scheme": "w4a16-g32", "method": {"name": "auto-round", "options": {"iters": 2}}}
    dtype = torch.bfloat16  # from fp32 it keeps nothing wider than 16 bits


@pytest.mark.slow
class TestGguf(BackendConformance):
    make_backend = gguf
    group: ClassVar = {"scheme": "w4a16-g32", "method": "rtn"}


@pytest.mark.slow
class TestGptqmodel(BackendConformance):
    make_backend = gptqmodel
    dtype = torch.bfloat16  # from fp32 it keeps nothing wider than 16 bits
    group: ClassVar = {"scheme": "w4a16-g32", "method": {"name": "gptq", "actorder": None}}


@pytest.mark.slow
class TestAutogptq(BackendConformance):
    make_backend = autogptq
    group: ClassVar = {"scheme": "w4a16-g32", "method": {"name": "gptq", "actorder": None}}


@pytest.mark.slow
class TestBitsandbytes(BackendConformance):
    make_backend = bitsandbytes
    group: ClassVar = {"scheme": "nf4"}


@pytest.mark.slow
class TestTorchao(BackendConformance):
    make_backend = torchao
    group: ClassVar = {"scheme": "w8a16"}


@pytest.mark.slow
class TestLlmcompressor(BackendConformance):
    make_backend = llmcompressor


@pytest.mark.slow
class TestHqq(BackendConformance):
    make_backend = hqq
    group: ClassVar = {"scheme": "w4a16-g64-asym", "method": "hqq"}


@pytest.mark.slow
class TestQuanto(BackendConformance):
    make_backend = quanto
    group: ClassVar = {"scheme": "w8a16"}


LIES: dict[str, type[NativeBackend]] = {
    "test_capabilities_are_data": liars.ImportsItsLibrary,
    "test_availability_is_honest": liars.HidesItsVersion,
    "test_can_do_what_it_claims": liars.ClaimsTooLittle,
    "test_obeys_targets_and_ignore": liars.TouchesWhatIsIgnored,
    "test_true_bits_per_weight": liars.CountsHalfTheBytes,
    "test_records_true_errors": liars.ReportsNoError,
    "test_reloads_to_what_was_made": liars.LoadsAnotherModel,
    "test_quality_within_a_band": liars.TakesFewerBits,
    "test_deterministic": liars.DependsOnTheClock,
    "test_refuses_a_damaged_model": liars.ShowsTracebacks,
    "test_killed_and_run_again": liars.NeverComesBack,
}


def test_there_is_a_lie_for_every_check() -> None:
    checks = {name for name in dir(BackendConformance) if name.startswith("test_")}
    assert checks == set(LIES)


@pytest.mark.parametrize("check", sorted(LIES))
def test_a_lie_is_found(check: str, tmp_path: Path) -> None:
    class Liar(BackendConformance):
        make_backend: Callable[[], Backend] = LIES[check]

    kit = Liar()
    method = getattr(kit, check)
    wanted = method.__code__.co_varnames[1 : method.__code__.co_argcount]
    given: dict[str, Any] = {"tmp_path": tmp_path}
    if {"model", "job", "made"} & set(wanted):
        given["model"] = tiny_model(tmp_path / "model")
        given["job"] = kit.order(given["model"], tmp_path / "first")
    if "made" in wanted:
        given["made"] = kit.backend().quantize(given["job"])
    with pytest.raises((AssertionError, ValueError, RuntimeError)):
        method(**{name: given[name] for name in wanted})
