"""What the native backend can do, as data, and its door; torch is imported when the work begins."""

from __future__ import annotations

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
    weight_bits={"int": WEIGHT_BITS},
    activation_bits=(16, 8),
    strategies=("tensor", "channel", "group"),
    methods=("rtn", "gptq"),
    formats=("compressed-tensors", "gptq", "gptq_v2"),
    devices=("cpu", "cuda"),
    transforms=("smoothquant", "awq", "outlier-suppression-plus", "hadamard"),
    compensations=("lorc",),
    streams=True,
    resumes=True,
)


class NativeBackend:
    """RTN and GPTQ, block by block, written as compressed-tensors or GPTQ."""

    name = "native"

    def capabilities(self) -> Capabilities:
        """Integer weights of 2-6 and 8 bits, weight-only or with dynamic int8 inputs."""
        return CAPABILITIES

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
