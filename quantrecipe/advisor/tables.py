"""Devices and engines as data: hardware.yaml and engines.yaml in their compiled form."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from quantrecipe.errors import QuantRecipeError, did_you_mean

COMPILED = Path(__file__).with_name("compiled_tables.json")


class Device(NamedTuple):
    """One kind of device. memory: bytes that a program finds on it; None where it depends (cpu).

    checked: whether that was read in a source, named in hardware.yaml; the rest is from memory.
    """

    name: str
    vendor: str
    architecture: str
    memory: int | None = None
    compute_capability: float | None = None
    bandwidth: float | None = None
    tflops: float | None = None
    sold_as: int | None = None
    checked: bool = False

    @property
    def kind(self) -> str:
        """gpu or cpu."""
        return "cpu" if self.architecture in ("cpu", "arm_cpu") else "gpu"

    @property
    def fp8(self) -> bool:
        """Whether it multiplies FP8 in hardware: compute capability 8.9 and later, CDNA3."""
        return self.architecture in ("ada", "hopper", "blackwell", "cdna3")


class Engine(NamedTuple):
    """One serving program, as of ``version``; the fields are explained in engines.yaml."""

    name: str
    version: str
    sources: list[str]
    unverified: list[str]
    formats: Mapping[str, list[int]]
    act_formats: Mapping[str, list[int]]
    asymmetric: Mapping[str, list[int]]
    kv: Mapping[str, Mapping[str, Any]]
    fast_bits: list[int]
    share: float
    prefill: int | None
    devices: list[str]
    launch: str
    flags: Mapping[str, str]
    groups: Mapping[str, list[int]] = MappingProxyType({})
    align: tuple[int, int] | None = None
    kv_scales: bool = False
    adapters: bool = False
    embeddings: Mapping[str, list[int]] = MappingProxyType({})
    tied: bool = False
    decompresses: Collection[str] = ()
    no_integers: Collection[str] = ()

    def cache(self, bits: int) -> Mapping[str, Any] | None:
        """The entry of a KV cache of that many bits; None where it has none."""
        return self.kv.get(str(bits))

    @property
    def cache_bits(self) -> list[int]:
        """Bits of a KV cache that it can hold beside 16, most first."""
        return sorted(map(int, self.kv), reverse=True)


@cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(COMPILED.read_bytes())
    return data


@cache
def devices() -> dict[str, Device]:
    """Every known device by name."""
    return {name: Device(name, **entry) for name, entry in _data()["devices"].items()}


@cache
def engines() -> dict[str, Engine]:
    """Every known engine by name."""
    return {key: Engine(key.partition("@")[0], **entry) for key, entry in _data()["engines"].items()}


def sources() -> dict[str, str]:
    """Field of the device table -> where it was read."""
    return dict(_data()["device_sources"])


def read_at() -> str:
    """When the device table was read."""
    return str(_data()["read"])


def device(name: str) -> Device:
    """The device of that name or alias. Raises QuantRecipeError naming the nearest."""
    key = name.strip().lower().replace("_", "-").replace(" ", "-").removeprefix("nvidia-")
    key = _data()["device_aliases"].get(key, key)
    if key not in devices():
        known = {**devices(), **_data()["device_aliases"]}
        remedy = did_you_mean(name, known) or "list them: qadvise hardware"
        raise QuantRecipeError("unknown hardware", value=name, remedy=remedy)
    return devices()[key]


def engine(name: str) -> Engine:
    """The engine of that name. Raises QuantRecipeError naming the nearest."""
    key = {"trt-llm": "tensorrt-llm", "tensorrt": "tensorrt-llm", "llamacpp": "llama.cpp", "hf": "transformers"}.get(
        name.strip().lower(), name.strip().lower()
    )
    if key not in engines():
        raise QuantRecipeError(
            "unknown engine", value=name, limit=", ".join(engines()), remedy=did_you_mean(name, engines())
        )
    return engines()[key]
