"""The launcher of a real GPU: cubins loaded once a device, launched through cuda.core on torch's current stream."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from quantrecipe.errors import BackendError
from quantrecipe.kernels.catalog import Variant
from quantrecipe.kernels.compile import compile_variant

STATIC_SHARED = 48 * 1024  # bytes a block that need no asking; more must be allowed kernel by kernel


class Stream:
    """torch's stream, by the protocol that cuda.core reads."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        """(version of the protocol, handle)."""
        return 0, self.handle


def compute_capability(index: int) -> int:
    """80 for 8.0."""
    major, minor = torch.cuda.get_device_capability(index)
    return major * 10 + minor


@lru_cache(maxsize=1024)
def loaded(variant: Variant, index: int) -> Any:
    """The kernel on device ``index``, compiled or read from the cache on first use."""
    from cuda.core import Device, ObjectCode

    Device(index).set_current()  # the primary context, which is torch's
    made = compile_variant(variant, compute_capability(index))
    kernel = ObjectCode.from_cubin(made.cubin).get_kernel(variant.kernel.name)
    if variant.kernel.shared > STATIC_SHARED:
        _allow_shared(kernel, variant, index)
    return kernel


def _allow_shared(kernel: Any, variant: Variant, index: int) -> None:
    """Let the kernel have as much dynamic shared memory as the catalogue says, or the device has."""
    from cuda.bindings import driver

    properties: Any = torch.cuda.get_device_properties(index)  # torch's stubs lack the attribute
    most = properties.shared_memory_per_block_optin
    wanted = min(variant.kernel.shared, most)
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    (fault,) = driver.cuKernelSetAttribute(attribute, wanted, kernel.handle, driver.CUdevice(index))
    if int(fault):
        raise BackendError(
            f"{variant.kernel.name} cannot have its shared memory", value=wanted, limit=f"{most} bytes"
        )


def launch_on_device(
    variant: Variant, grid: Sequence[int], threads: int, shared: int, arguments: Sequence[Any]
) -> None:
    """Launch on the device of the first tensor among the arguments."""
    from cuda.core import LaunchConfig
    from cuda.core import launch as launch_kernel

    device = next(one.device for one in arguments if isinstance(one, torch.Tensor))
    values = [_value(one) for one in arguments]
    with torch.cuda.device(device):
        kernel = loaded(variant, device.index)
        stream = Stream(torch.cuda.current_stream(device).cuda_stream)
        config = LaunchConfig(grid=tuple(grid), block=threads, shmem_size=shared)
        launch_kernel(stream, config, kernel, *values)


def _value(argument: Any) -> Any:
    if argument is None:
        return 0
    return argument.data_ptr() if isinstance(argument, torch.Tensor) else argument
