"""One layer from its fp32 weight to its tensors in the file and its record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from quantrecipe.errors import BackendError, ModelError
from quantrecipe.modeling.plan import PlannedModule
from quantrecipe.plugins.contract import LayerRecord
from quantrecipe.plugins.native.factor import Setting
from quantrecipe.plugins.native.gptq import gptq
from quantrecipe.plugins.native.hessian import Hessian
from quantrecipe.plugins.native.linear import get_weight, set_weight
from quantrecipe.plugins.native.qparams import Quantized, Storage
from quantrecipe.plugins.native.record import digest, output_error, relative_error, served_weight
from quantrecipe.plugins.native.rtn import rtn
from quantrecipe.recipe import GptqMethod, Group, RtnMethod


@dataclass(frozen=True, slots=True)
class Layer:
    """A module of the model and what is to become of it."""

    planned: PlannedModule
    group: Group
    module: nn.Module

    @property
    def name(self) -> str:
        """Full name of the module."""
        return self.planned.name

    @property
    def wants_inputs(self) -> bool:
        """Whether its method looks at activations."""
        return isinstance(self.group.method, GptqMethod)

    def rounded_to_nearest(self) -> Layer:
        """The same by a method that needs no inputs."""
        return replace(self, group=self.group.model_copy(update={"method": RtnMethod(name="rtn")}))


def quantize_layer(
    layer: Layer, storage: Storage, hessian: Hessian | None, note: Callable[[str], None]
) -> tuple[Quantized, LayerRecord]:
    """Choose the codes, put the dequantized weight into the module, say what was lost.

    Raises ModelError where the weight is not finite, BackendError where a scale overflows.
    """
    began = time.perf_counter()
    weight = get_weight(layer.module)
    check_finite(weight, layer.name)
    tokens = None if hessian is None else hessian.tokens
    if tokens == 0:  # an expert that no calibration token was sent to
        layer, hessian = layer.rounded_to_nearest(), None
    quantized, remark = choose_codes(layer.name, layer.group, weight, storage, hessian, note)
    served = served_weight(quantized, storage, layer.module.weight.dtype)  # type: ignore[arg-type]
    set_weight(layer.module, served)
    record = LayerRecord(
        name=layer.name,
        scheme=layer.group.scheme.name,
        method=layer.group.method.name,
        rows=weight.shape[0],
        columns=weight.shape[1],
        bytes=quantized.nbytes,
        relative_error=relative_error(weight, served),
        output_error=None if hessian is None else output_error(weight, served, hessian),
        digest=digest(served),
        seconds=time.perf_counter() - began,
        note="no calibration token reached it" if tokens == 0 else remark,
        tokens=tokens,
    )
    return quantized, record


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
) -> tuple[Quantized, str | None]:
    """The codes that the group's method gives an fp32 weight [N, K], and a remark. Raises BackendError."""
    method, args = group.method, group.weights
    try:
        if isinstance(method, GptqMethod) and hessian is not None:
            factor = hessian.factor(Setting.of(method, args), name, note)
            remark = f"{factor.dead} inputs always zero" if factor.dead else None
            return gptq(weight, factor, args, storage, method.block_size), remark
        if isinstance(method, RtnMethod):
            return rtn(weight, args, storage), None
    except BackendError as error:
        raise _named(error, name) from error
    raise BackendError("the native backend has no such method", value=method.name, limit="rtn, gptq")


def _named(error: BackendError, name: str) -> BackendError:
    if name in error.what:
        return error
    return BackendError(f"{name}: {error.what}", value=error.value, limit=error.limit, remedy=error.remedy)
