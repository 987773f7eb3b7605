"""What reaches cuda.core: values, stream, grid; and what a launcher refuses."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch

from quantrecipe.errors import BackendError
from quantrecipe.kernels.catalog import variant
from quantrecipe.kernels.cuda import device
from quantrecipe.kernels.cuda.launch import integer, launch, launching_with, long_integer, scalar_name

core = pytest.importorskip("cuda.core")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A GPU's place is taken, from the loaded kernel on."""
    calls: list[tuple[Any, ...]] = []

    class Guard:
        def __init__(self, where: torch.device) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    class Current:
        cuda_stream = 77

    monkeypatch.setattr(torch.cuda, "device", Guard)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Current)
    monkeypatch.setattr(device, "loaded", lambda one, index: one.label)
    monkeypatch.setattr(core, "launch", lambda *words: calls.append(words))
    return calls


def test_arguments_arrive_as_the_kernel_reads_them(launched: list[tuple[Any, ...]]) -> None:
    from cuda.core._kernel_arg_handler import ParamHolder

    held = torch.zeros(5, dtype=torch.float16)
    wanted = [(held, ctypes.c_uint64), (None, ctypes.c_uint64), (integer(-3), ctypes.c_int)]
    wanted += [(long_integer(1 << 40), ctypes.c_int64), (ctypes.c_float(1.5), ctypes.c_float)]
    launch(variant("gptq_block"), (3, 2), 256, 65536, *(value for value, _ in wanted))
    ((stream, config, kernel, *values),) = launched
    assert stream.__cuda_stream__() == (0, 77) and kernel == "gptq_block"
    assert (config.grid, config.block, config.shmem_size) == ((3, 2, 1), (256, 1, 1), 65536)
    held_by_driver = ParamHolder(values)
    places = ctypes.cast(held_by_driver.ptr, ctypes.POINTER(ctypes.c_void_p))
    read = [ctypes.cast(places[i], ctypes.POINTER(kind))[0] for i, (_, kind) in enumerate(wanted)]
    assert read == [held.data_ptr(), 0, -3, 1 << 40, 1.5]


def test_an_empty_grid_launches_nothing(launched: list[tuple[Any, ...]]) -> None:
    launch(variant("gptq_block"), (0, 2), 256, 0, torch.zeros(1))
    assert not launched


def test_another_launcher_takes_over_within_its_block(launched: list[tuple[Any, ...]]) -> None:
    seen: list[tuple[Any, ...]] = []
    with launching_with(lambda *words: seen.append(words)):
        launch(variant("gptq_block"), (1,), 256, 0, torch.zeros(1))
    assert len(seen) == 1 and not launched


def test_types_without_a_kernel_are_refused() -> None:
    with pytest.raises(BackendError, match=r"no CUDA kernel for this type: 'torch.float32'; torch.float16 or"):
        scalar_name(torch.float32)


@pytest.mark.gpu
def test_shared_memory_is_granted_and_freed_on_a_real_device() -> None:
    kernel = device.loaded(variant("gptq_block"), torch.cuda.current_device())
    assert kernel.attributes.max_dynamic_shared_size_bytes >= 65536 and kernel.attributes.local_size_bytes == 0
