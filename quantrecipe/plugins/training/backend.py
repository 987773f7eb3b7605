"""What training can do, as data, and its door; torch is imported when the work begins."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from quantrecipe.plugins.contract import Availability, Capabilities, Checkpoint, Job
from quantrecipe.plugins.native.backend import CAPABILITIES as NATIVE
from quantrecipe.plugins.native.backend import NativeBackend

if TYPE_CHECKING:
    import torch

CAPABILITIES = replace(
    NATIVE,
    methods=("rtn",),
    type_methods={},
    kv_cache_bits={},
    embeddings=False,
    static_activations=False,
    transforms=(),
    compensations=(),
    trainings=("qat", "qlora"),
    streams=False,
)


class TrainingBackend:
    """Fine-tunes the whole model in memory (qat, qlora); the native backend writes what was learned."""

    name = "training"

    def capabilities(self) -> Capabilities:
        """The native backend's number types and formats; round to nearest alone; the model is held whole."""
        return CAPABILITIES

    def availability(self) -> Availability:
        """The native backend's libraries and peft."""
        native = NativeBackend().availability()
        if native.available and find_spec("peft") is None:
            return Availability(False, missing="peft", remedy="pip install 'quantrecipe[train]'")
        return native

    def quantize(self, job: Job) -> Checkpoint:
        """Train, then write. Raises BackendError, ModelError."""
        from quantrecipe.plugins.training.run import quantize

        return quantize(job)

    def load(self, checkpoint: Path, device: str) -> torch.nn.Module:
        """The model in a folder that this backend wrote, dequantized, its adapter applied."""
        return NativeBackend().load(checkpoint, device)
