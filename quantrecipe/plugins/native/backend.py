"""What the native backend can do, as data, and its door; torch is imported when the work begins."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from quantrecipe.plugins.contract import Availability, Capabilities, Checkpoint, Job
from quantrecipe.scheme_facts import WEIGHT_BITS

if TYPE_CHECKING:
    import torch

NEEDS = ("torch", "transformers", "compressed_tensors", "numba", "greenlet", "safetensors", "accelerate")

CAPABILITIES = Capabilities(
    weight_bits={"int": WEIGHT_BITS, "float": (4, 8), "e5m2": (8,), "nf4": (4,), "fp4": (4,)},
    activation_bits=(16, 8, 7, 6, 5, 4),
    activation_types=("int", "float", "e5m2"),
    activation_strategies=("token", "group", "tensor"),
    static_activations=True,
    type_methods=dict.fromkeys(("float", "e5m2", "nf4", "fp4"), ("rtn", "zq-local", "zq-global")),
    kv_cache_bits={"int": (8, 4), "float": (8,)},
    strategies=("tensor", "channel", "group", "block"),
    methods=("rtn", "gptq", "hqq", "llm-int8", "glm-int4", "awq-clip", "odyssey", "olive", "zq-local", "zq-global"),
    formats=("compressed-tensors", "gptq", "gptq_v2", "bitsandbytes", "quantrecipe"),
    devices=("cpu", "cuda"),
    transforms=("smoothquant", "awq", "outlier-suppression-plus", "hadamard", "rptq"),
    compensations=("lorc",),
    embeddings=True,
    streams=True,
    resumes=True,
)


def plugin_methods() -> tuple[str, ...]:
    """Names of the methods that plugins add; they look at a layer's inputs and choose integer codes."""
    from quantrecipe.plugins.manager import methods

    return tuple(methods())


class NativeBackend:
    """Our own methods, block by block, written as compressed-tensors, GPTQ, bitsandbytes or our own layout."""

    name = "native"

    def capabilities(self) -> Capabilities:
        """Number types, methods and formats, as they are carried out today; methods that plugins bring among them."""
        brought = plugin_methods()
        return replace(CAPABILITIES, methods=(*CAPABILITIES.methods, *brought)) if brought else CAPABILITIES

    def availability(self) -> Availability:
        """Whether its libraries are installed; nothing is imported to find out, so CUDA is not probed."""
        missing = [name for name in NEEDS if find_spec(name) is None]
        if missing:
            remedy = "pip install 'quantrecipe[run]'"
            return Availability(False, missing=", ".join(missing), remedy=remedy)
        return Availability(True, version=_version(), devices=CAPABILITIES.devices)

    def quantize(self, job: Job) -> Checkpoint:
        """Carry the job out. Raises BackendError, ModelError."""
        from quantrecipe.plugins.native.run import quantize

        return quantize(job)

    def estimate(self, job: Job) -> float:
        """Seconds that ``quantize`` will take, from the first block timed on this machine."""
        from quantrecipe.plugins.native.estimate import estimate_seconds

        return estimate_seconds(job)

    def load(self, checkpoint: Path, device: str) -> torch.nn.Module:
        """The model in a folder that this backend wrote, its weights dequantized."""
        from quantrecipe.plugins.native.load import load

        return load(checkpoint, device)


def _version() -> str:
    try:
        return version("quantrecipe")
    except PackageNotFoundError:
        return "0"
