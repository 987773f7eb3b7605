"""One layer from its fp32 weight to its tensors in the file and its record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from quantrecipe.errors import BackendError, ModelError
from quantrecipe.modeling.digest import digest
from quantrecipe.modeling.plan import PlannedModule
from quantrecipe.plugins.contract import LayerRecord
from quantrecipe.plugins.native.activations import Rounding
from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.linear import get_weight, set_weight
from quantrecipe.plugins.native.methods.registry import Problem, solve
from quantrecipe.plugins.native.qparams import Matrix, Storage
from quantrecipe.plugins.native.record import output_error, relative_error
from quantrecipe.recipe import Group, RtnMethod


@dataclass(frozen=True, slots=True)
class Layer:
    """A module of the model and what is to become of it."""

    planned: PlannedModule
    group: Group
    module: nn.Module
    rounding: Rounding | None = None

    @classmethod
    def of(cls, planned: PlannedModule, group: Group, module: nn.Module) -> Layer:
        """A layer about to be quantized; a static scale of its inputs is still to be found."""
        inputs = group.input_activations
        return cls(planned, group, module, None if inputs is None else Rounding(inputs))

    @property
    def name(self) -> str:
        """Full name of the module."""
        return self.planned.name

    @property
    def wants_inputs(self) -> bool:
        """Whether its method, or a static scale, looks at activations."""
        static = self.rounding is not None and not self.rounding.args.dynamic
        return static or self.group.method.needs == "inputs"

    def rounded_to_nearest(self) -> Layer:
        """The same by a method that needs no inputs."""
        return replace(self, group=self.group.model_copy(update={"method": RtnMethod(name="rtn")}))


def quantize_layer(
    layer: Layer, storage: Storage, hessian: Hessian | None, note: Callable[[str], None]
) -> tuple[Matrix, LayerRecord]:
    """Choose the codes, put the dequantized weight into the module, say what was lost.

    Raises ModelError where the weight is not finite, BackendError where a scale overflows.
    """
    began = time.perf_counter()
    weight = get_weight(layer.module)
    check_finite(weight, layer.name)
    tokens = None if hessian is None else hessian.tokens
    if tokens == 0:  # an expert that no calibration token was sent to
        layer, hessian = layer.rounded_to_nearest(), None
    quantized = choose_codes(layer.name, layer.group, weight, storage, hessian, note)
    served = quantized.served(storage, layer.module.weight.dtype)  # type: ignore[arg-type]
    set_weight(layer.module, served)
    if layer.rounding is not None and layer.rounding.waits and hessian is not None:
        layer.rounding.fixed = hessian.observed.fixed(layer.rounding.args, storage.scale_dtype)
    record = record_of(layer, weight, quantized, served, time.perf_counter() - began)
    return quantized, replace(
        record,
        output_error=None if hessian is None else output_error(weight, served, hessian),
        note="no calibration token reached it" if tokens == 0 else _remark(hessian),
        tokens=tokens,
    )


def record_of(
    layer: Layer, weight: torch.Tensor, quantized: Matrix, served: torch.Tensor, seconds: float
) -> LayerRecord:
    """What became of a layer's fp32 weight [N, K], without what only its inputs could tell."""
    return LayerRecord(
        name=layer.name,
        scheme=layer.group.scheme.name,
        method=layer.group.method.name,
        rows=weight.shape[0],
        columns=weight.shape[1],
        bytes=quantized.nbytes,
        relative_error=relative_error(weight, served),
        output_error=None,
        digest=digest(served),
        seconds=seconds,
    )


def check_finite(weight: torch.Tensor, name: str) -> None:
    """Raises ModelError where a weight is not finite."""
    if not all(math.isfinite(float(extreme)) for extreme in torch.aminmax(weight)):
        raise ModelError("a weight holds NaN or infinity", value=f"{name}.weight", remedy="check the download")


def choose_codes(  # noqa: PLR0913, PLR0917
    name: str,
    group: Group,
    weight: torch.Tensor,
    storage: Storage,
    hessian: Hessian | None,
    note: Callable[[str], None],
) -> Matrix:
    """What the group's method makes of an fp32 weight [N, K]. Raises BackendError."""
    try:
        return solve(Problem(name, weight, group.weights, storage, group.method, hessian, note))
    except BackendError as error:
        raise _named(error, name) from error


def _remark(hessian: Hessian | None) -> str | None:
    dead = 0 if hessian is None else hessian.dead
    return f"{dead} inputs always zero" if dead else None


def _named(error: BackendError, name: str) -> BackendError:
    if name in error.what:
        return error
    return BackendError(f"{name}: {error.what}", value=error.value, limit=error.limit, remedy=error.remedy)
