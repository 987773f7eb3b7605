"""16-bit numbers inside compiled loops, which know no bfloat16: arrays of uint16 are its bits, of float32 numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from numba.extending import overload

#: Sums may be ordered otherwise and products fused; NaN and infinity keep their meaning.
FASTMATH = {"reassoc", "contract", "nsz"}

_MOST_THREADS: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]

Array = Any


def loop(parallel: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function once for each combination of types, kept on disk."""
    compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(
        parallel=parallel, nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy"
    )
    return compiled


def raw(tensor: torch.Tensor) -> Array:
    """The tensor as compiled loops take it, without a copy: bfloat16 and float8 as their bits."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy()
    return tensor.view(torch.uint8).numpy() if tensor.dtype == torch.float8_e4m3fn else tensor.numpy()


def get(array: Array, index: Any) -> float:
    """The number at an index, as fp32."""
    raise NotImplementedError("compiled only")


def put(array: Array, index: Any, value: Any) -> None:
    """Store an fp32 number, rounded to the nearest, ties to even."""
    raise NotImplementedError("compiled only")


@overload(get, inline="always")
def _get(array: Array, index: Any) -> Any:
    def number(array: Array, index: Any) -> Any:
        return array[index]

    def bits(array: Array, index: Any) -> Any:
        return np.uint32(np.uint32(array[index]) << np.uint32(16)).view(np.float32)

    return number if isinstance(array.dtype, numba.types.Float) else bits


@overload(put, inline="always")
def _put(array: Array, index: Any, value: Any) -> Any:
    def number(array: Array, index: Any, value: Any) -> None:
        array[index] = value

    def bits(array: Array, index: Any, value: Any) -> None:
        whole = np.float32(value).view(np.uint32)
        even = np.uint32(np.uint32(whole >> np.uint32(16)) & np.uint32(1))
        array[index] = np.uint16(np.uint32(whole + np.uint32(0x7FFF) + even) >> np.uint32(16))

    return number if isinstance(array.dtype, numba.types.Float) else bits


def use_threads() -> None:
    """Let compiled loops use as many threads as torch does; to be called before every parallel loop.

    Numba's OpenMP layer gives torch all threads when it starts: the number that torch was told is put back.
    """
    threads = torch.get_num_threads()
    numba.set_num_threads(min(threads, _MOST_THREADS))
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def loopable(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous, and in a type that loops know: float16 becomes float32, exactly."""
    return (tensor.float() if tensor.dtype == torch.float16 else tensor).contiguous()
