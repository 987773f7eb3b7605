"""The steps of one decoder block, and what plugs in between them.

    load -> transforms -> quantize (layer by layer, each followed by the compensation) -> tune
         -> artefact -> pass activations on -> release

Two streams of hidden states run beside the blocks. ``quantized``: what the quantized prefix gives (GPTQ).
``original``: what the original network gives (SmoothQuant, AWQ, Outlier Suppression+); ZeroQuant's distillation and
the error of a block look at both. A stream is carried only where some stage or method asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from quantrecipe.plugins.contract import LayerRecord
from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.layers import Layer
from quantrecipe.plugins.native.qparams import Matrix, Storage

Side = Literal["original", "quantized"]


@dataclass(slots=True)
class Parameters:
    """The parameters under one module, and which of them a stage has changed.

    module: the block or, for ``Transform.outside``, the model with everything but its blocks loaded. name: its
    full name ('' = the model). stored_dtype: what a parameter of the model is stored in. changed: full names of the
    parameters that are written as they are now, instead of (or beside) what the original's files hold.
    """

    module: nn.Module
    name: str
    stored_dtype: Callable[[str], torch.dtype]
    changed: dict[str, torch.Tensor] = field(default_factory=dict)

    def change(self, parameter: str, value: torch.Tensor) -> None:
        """Give the parameter (by full name, such as ``model.layers.3.input_layernorm.weight``) this value.

        It is rounded to the dtype that it is stored in first, so that what follows computes with what readers will
        read. A parameter that was not there (the bias that a shift needs) is added. The weight of a
        layer that will be quantized is set by ``linear.set_weight`` instead: its codes are written.
        """
        owner, attribute = self._owner(parameter)
        old = owner._parameters.get(attribute)
        like = next(owner.parameters(recurse=False)) if old is None else old
        stored = value.detach().to(self.stored_dtype(parameter))
        owner._parameters[attribute] = nn.Parameter(stored.to(like.device, like.dtype), requires_grad=False)
        self.changed[parameter] = stored

    def get(self, parameter: str) -> torch.Tensor:
        """The parameter's value as it is computed with; by full name."""
        owner, attribute = self._owner(parameter)
        value: torch.Tensor = getattr(owner, attribute)
        return value.detach()

    def _owner(self, parameter: str) -> tuple[nn.Module, str]:
        name, _, attribute = parameter.removeprefix(f"{self.name}.").rpartition(".")
        return self.module.get_submodule(name), attribute


@dataclass(slots=True)
class Block(Parameters):
    """One materialized decoder block under way.

    layers: what will be quantized in it, by full name, in the model's order. inputs: hidden states
    [batch, length, hidden] a batch, of each stream that is carried. targets: what the original block gives on
    the original stream; () where that is not carried. run: the block as it is now, on one batch.
    storage: how the output format keeps its grids. note: one line for the user.
    """

    index: int = 0
    layers: Mapping[str, Layer] = field(default_factory=dict)
    inputs: dict[Side, Sequence[torch.Tensor]] = field(default_factory=dict)
    targets: Sequence[torch.Tensor] = ()
    run: Callable[[torch.Tensor], torch.Tensor] = lambda hidden: hidden
    storage: Storage = Storage(torch.float32, torch.float32)  # noqa: RUF009 - frozen
    note: Callable[[str], None] = lambda text: None


class Transform:
    """A function-preserving rewrite before quantization; one instance a run.

    inputs: the streams that ``apply`` looks at. A run that goes on where another was killed calls ``outside`` again
    and ``apply`` only for the blocks that are left, so ``apply`` must depend on the block alone.
    """

    name: str
    inputs: frozenset[Side] = frozenset()

    def outside(self, model: Parameters) -> None:
        """Once, before the first block: what lies in no block (embeddings, final norm, head). Default: nothing."""

    def apply(self, block: Block) -> None:
        """Rewrite a block: ``linear.set_weight`` for layers to be quantized, ``block.change`` for all else."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Entries that config.json needs from now on, such as ``attention_bias``. Default: none."""
        return {}


@dataclass(frozen=True, slots=True)
class Compensated:
    """served: the weight [N, K] that the layer now stands for, in fp32.

    beside: tensors for the compensation's own file. note: one line for the layer's record.
    """

    served: torch.Tensor
    beside: dict[str, torch.Tensor]
    note: str | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of what lies beside."""
        return sum(tensor.nbytes for tensor in self.beside.values())


class Compensation:
    """What is added to a layer once it is quantized (LoRC); layers after it see it compensated."""

    name: str
    inputs: frozenset[Side] = frozenset()

    def compensate(self, layer: Layer, weight: torch.Tensor, hessian: Hessian | None) -> Compensated | None:
        """Make the layer's module compute with the compensation as well, while its block is under way.

        weight: fp32 [N, K] before quantization; the module holds what it became. None = leave it so.
        """
        raise NotImplementedError

    def write(self, folder: Path, beside: Mapping[str, torch.Tensor]) -> None:
        """Write the tensors of all layers, as ``compensate`` named them, under the checkpoint's folder."""
        raise NotImplementedError


class Tuning:
    """A method that works on the block as a whole (ZeroQuant's distillation, quantization-aware steps).

    Its layers are left alone by the layer-wise step; ``tune`` must hand each of them to ``put``. It runs without a
    graph being kept; ``torch.enable_grad`` lifts that.
    """

    name: str
    inputs: frozenset[Side] = frozenset({"original", "quantized"})

    def tune(self, block: Block, layers: Sequence[Layer], put: Callable[[Layer, Matrix, LayerRecord], None]) -> None:
        """Choose codes for ``layers`` together; ``put`` writes them. Modules must hold the dequantized weights."""
        raise NotImplementedError


#: By the recipe's name: what makes a stage of its part of the recipe, beside those that are built in.
TRANSFORMS: dict[str, Callable[[Any], Transform]] = {}
COMPENSATIONS: dict[str, Callable[[Any], Compensation]] = {}
TUNINGS: dict[str, Callable[[Any], Tuning]] = {}


@dataclass(frozen=True, slots=True)
class Stages:
    """What a recipe plugs in. tunings: by method name."""

    transforms: tuple[Transform, ...] = ()
    compensation: Compensation | None = None
    tunings: Mapping[str, Tuning] = field(default_factory=dict)

    @property
    def inputs(self) -> frozenset[Side]:
        """The streams that any of them looks at."""
        wanted: list[frozenset[Side]] = [transform.inputs for transform in self.transforms]
        wanted += [tuning.inputs for tuning in self.tunings.values()]
        wanted += [] if self.compensation is None else [self.compensation.inputs]
        return frozenset[Side]().union(*wanted)
