"""A saved quantized checkpoint seen as plain weights, through a reader written apart from the writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from quantrecipe.errors import DamageError
from quantrecipe.modeling.adapter import attach_adapter
from quantrecipe.modeling.folder import ModelFolder, TensorInfo
from quantrecipe.modeling.formats import reader_of
from quantrecipe.modeling.plan import Plan
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.native.activations import apply_scheme
from quantrecipe.runner.scorers import Streamed
from quantrecipe.schemes import QuantizationArgs


class DequantizedFolder(ModelFolder):
    """A quantized folder whose packed modules read as ``<module>.weight``, dequantized when asked for.

    transposed: modules whose weight the model holds as [K, N] (Conv1D). product: the dtype that a loader computes in.
    """

    def __init__(self, path: Path, config: dict[str, Any], tensors: dict[str, TensorInfo]) -> None:
        self.stored = ModelFolder(path, config, dict(tensors))
        self.reader = reader_of(self.stored)
        super().__init__(path, config, tensors)
        self.product: torch.dtype | None = None
        self.transposed: set[str] = set()
        self.modules = set(self.reader.modules(self.stored))
        for module in self.modules:
            parts = self.reader.parts(self.stored, module)
            first = tensors[parts[0]]
            for part in parts:
                del tensors[part]
            tensors[f"{module}.weight"] = TensorInfo(f"{module}.weight", first.file, torch.float16, ())

    def tensor(self, name: str) -> torch.Tensor:
        """A plain tensor, or a dequantized weight."""
        module = name.removesuffix(".weight")
        if module not in self.modules or module == name:
            return super().tensor(name)
        weight = self.reader.decode(self.stored, module).weight(self.product)
        return weight.t().contiguous() if module in self.transposed else weight


def open_dequantized(
    path: Path, dtype: torch.dtype | None, trust_remote_code: bool = False
) -> tuple[DequantizedFolder, Skeleton]:
    """The folder and its architecture, as a loader that computes in ``dtype`` (None = the scales') sees them.

    Raises DamageError where it holds no quantized weights.
    """
    folder = DequantizedFolder.open(path)
    assert isinstance(folder, DequantizedFolder)
    folder.product = dtype
    if not folder.modules:
        raise DamageError("the checkpoint holds no quantized weights", value=str(path))
    skeleton = Skeleton(folder, trust_remote_code)
    for info in skeleton.linears():
        if info.kind == "Conv1D":
            folder.transposed.add(skeleton.stored_name(f"{info.name}.weight").removesuffix(".weight"))
    return folder, skeleton


def round_inputs(skeleton: Skeleton, inputs: dict[str, QuantizationArgs], as_transformers: bool = False) -> None:
    """Make the named modules see their inputs quantized, for good."""
    for name, args in inputs.items():
        apply_scheme(skeleton.model.get_submodule(name), args, as_transformers)


def quantized_inputs(plan: Plan) -> dict[str, QuantizationArgs]:
    """The modules of a plan whose inputs are quantized, and how."""
    groups = {module.name: module.group for module in plan.quantized}
    return {name: group.input_activations for name, group in groups.items() if group and group.input_activations}


def streamed(path: Path, plan: Plan, device: str, dtype: torch.dtype) -> Streamed:
    """The saved checkpoint as a scorer: inputs rounded as the plan says, one scale a token; its adapter applied."""
    _, skeleton = open_dequantized(path, dtype)
    round_inputs(skeleton, quantized_inputs(plan))
    attach_adapter(skeleton.model, path)
    return Streamed(skeleton, device, dtype)
