"""One test, several places: CPU twins, CUDA sources emulated on the host, a GPU. Outputs are poisoned first."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from emulation import launch_emulated, needs_compiler
from numpy.random import Generator

from quantrecipe.kernels.cuda import dequantize, eight_bit, gptq, loading, quantize, weight_only
from quantrecipe.kernels.cuda.launch import launching_with

CPU = pytest.param("cpu")
EMULATED = pytest.param("emulated", marks=needs_compiler)
CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
everywhere = pytest.mark.parametrize("place", [CPU, EMULATED, CUDA])


def cases(
    all_of_them: Iterable[tuple[Any, ...]],
    quick: set[tuple[Any, ...]],
    places: Sequence[str] = ("cpu", "emulated", "cuda"),
) -> pytest.MarkDecorator:
    """``place`` and ``case``, every case everywhere; emulated ones that are not quick are slow: each is compiled."""
    found = []
    for case in all_of_them:
        label = "-".join(str(part).removeprefix("torch.") for part in case)
        slow = [] if case in quick else [pytest.mark.slow]
        marks = {"cpu": [], "emulated": [needs_compiler, *slow], "cuda": [pytest.mark.gpu]}
        found += [pytest.param(place, case, id=f"{place}-{label}", marks=marks[place]) for place in places]
    return pytest.mark.parametrize(("place", "case"), found)


LAUNCHERS: dict[str, Callable[..., Any]] = {
    "dequantize": dequantize.dequantize,
    "gptq_block": gptq.gptq_block,
    "quantize_activation": quantize.quantize_activation,
    "quantize_pack": quantize.quantize_pack,
    "repack": loading.repack,
    "repack_w4a8": loading.repack_w4a8,
    "linear_weight_only": weight_only.linear_weight_only,
    "linear_w8a8": eight_bit.linear_w8a8,
    "linear_w4a8": eight_bit.linear_w4a8,
    "linear_llm_int8": eight_bit.linear_llm_int8,
}


def call(place: str, name: str, *arguments: Any) -> Any:
    """The operator's results on the CPU; ``emulated`` runs the CUDA launcher over CPU tensors."""
    with poisoned():
        if place == "emulated":
            with launching_with(launch_emulated):
                return LAUNCHERS[name](*arguments)
        return moved(getattr(torch.ops.quantrecipe, name)(*(moved(one, place) for one in arguments)), "cpu")


def moved(value: Any, device: str) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(moved(one, device) for one in value)
    return value.to(device) if isinstance(value, torch.Tensor) else value


@contextmanager
def poisoned() -> Iterator[None]:
    """torch.empty gives NaNs and greatest integers."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def generator() -> Generator:
    """New numbers each time; the seed is in what pytest shows of a failure."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def numbers(random: Generator, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.from_numpy(random.standard_normal(shape)).to(dtype)
