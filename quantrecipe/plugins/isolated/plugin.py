"""Registers the backends that drive other libraries; what each can do is data, and imports nothing of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from quantrecipe.plugins.contract import Backend, Capabilities
from quantrecipe.plugins.hookspecs import hookimpl
from quantrecipe.plugins.isolated.backend import IsolatedBackend
from quantrecipe.plugins.isolated.environment import environments

WORKERS = Path(__file__).parent / "workers"

_GPTQ_BITS: dict[str, tuple[int, ...]] = {"int": (2, 3, 4, 8)}
CAPABILITIES = {
    "gptqmodel": Capabilities(
        weight_bits=_GPTQ_BITS,
        activation_bits=(16,),
        strategies=("channel", "group"),
        methods=("gptq",),
        formats=("gptq", "gptq_v2"),
        devices=("cpu", "cuda"),
        group_sizes=(16, 32, 64, 128, 256, 512, 1024),
        mixed=False,
    ),
    "autogptq": Capabilities(
        weight_bits=_GPTQ_BITS,
        activation_bits=(16,),
        strategies=("channel", "group"),
        methods=("gptq",),
        formats=("gptq",),
        devices=("cpu", "cuda"),
        mixed=False,
        successor="gptqmodel",
    ),
    "bitsandbytes": Capabilities(
        weight_bits={"int": (8,), "nf4": (4,), "fp4": (4,)},
        activation_bits=(16, 8),
        strategies=("channel", "group"),
        methods=("rtn", "llm-int8"),
        formats=("bitsandbytes",),
        devices=("cpu", "cuda"),
        asymmetric=False,
        group_sizes=(64,),
        mixed=False,
    ),
    "torchao": Capabilities(
        weight_bits={"int": (8,)},
        activation_bits=(16, 8),
        strategies=("channel",),
        methods=("rtn",),
        formats=("torchao",),
        devices=("cpu", "cuda"),
        asymmetric=False,
        activation_strategies=("token", "tensor"),
        static_activations=True,
        mixed=False,
    ),
    "llmcompressor": Capabilities(
        weight_bits={"int": (4, 8)},
        activation_bits=(16, 8),
        strategies=("channel", "group"),
        methods=("rtn", "gptq"),
        formats=("compressed-tensors",),
        devices=("cpu", "cuda"),
    ),
    "auto-round": Capabilities(
        weight_bits={"int": (2, 3, 4, 8)},
        activation_bits=(16,),
        strategies=("channel", "group"),
        methods=("auto-round",),
        formats=("gptq",),
        devices=("cpu", "cuda"),
        mixed=False,
    ),
    "hqq": Capabilities(
        weight_bits={"int": (2, 3, 4, 8)},
        activation_bits=(16,),
        strategies=("group",),
        methods=("hqq",),
        formats=("hqq",),
        devices=("cpu", "cuda"),
        mixed=False,
    ),
    "quanto": Capabilities(
        weight_bits={"int": (4, 8)},
        activation_bits=(16,),
        strategies=("channel", "group"),
        methods=("rtn",),
        formats=("quanto",),
        devices=("cpu", "cuda"),
        mixed=False,
    ),
    "gguf": Capabilities(
        weight_bits={"int": (4, 5, 8)},
        activation_bits=(16,),
        strategies=("group",),
        methods=("rtn",),
        formats=("gguf",),
        devices=("cpu",),
        group_sizes=(32,),
        mixed=False,
    ),
}


@hookimpl
def quantrecipe_register_backends(register: Callable[[Backend], None]) -> None:
    """One a library."""
    for backend in isolated_backends():
        register(backend)


def isolated_backends() -> Iterator[IsolatedBackend]:
    """All of them, in the order of the table."""
    for name, able in CAPABILITIES.items():
        worker = WORKERS / f"run_{name.replace('-', '_')}.py"
        yield IsolatedBackend(name, able, environments()[name], worker)
