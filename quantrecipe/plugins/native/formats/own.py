"""quantrecipe's own layout, for numbers that no outside format holds; docs/formats.md has every byte.

Integers with real zero points (hqq), outlier-victim pairs (olive), e5m2. Only quantrecipe reads it: others stop
at ``quant_method: quantrecipe``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

from quantrecipe.modeling.plan import Plan, PlannedModule
from quantrecipe.plugins.native.formats.base import refuse_matrix
from quantrecipe.plugins.native.methods.fp8 import Float8
from quantrecipe.plugins.native.methods.olive import Pairs
from quantrecipe.plugins.native.qparams import Matrix, Quantized, Storage

VERSION = 1


class Own:
    """Any mixture of its number types; each module says its own in the config."""

    name = "quantrecipe"
    unties = False

    def check(self, plan: Plan) -> None:
        """Everything that has a place in ``tensors``."""

    def storage(self, model_dtype: torch.dtype, compute_dtype: torch.dtype) -> Storage:
        """Scales in the model's dtype, products in fp32; zero points need not be whole."""
        return Storage(model_dtype, torch.float32, whole_zeros=False)

    def tensors(self, matrix: Matrix, as_bytes: bool) -> Iterable[tuple[str, torch.Tensor]]:
        """``codes``, ``scale`` [N, G] and, where asymmetric, ``zero`` [N, G]."""
        if isinstance(matrix, Quantized):
            return _integers(matrix)
        if isinstance(matrix, Pairs):
            return _pairs(matrix)
        if isinstance(matrix, Float8):
            return _float8(matrix)
        raise refuse_matrix(self.name, matrix)

    def config(self, plan: Plan) -> dict[str, Any]:
        """What each module's tensors hold."""
        config: dict[str, Any] = {
            "quant_method": self.name,
            "version": VERSION,
            "modules": {module.name: _module(module) for module in plan.quantized},
        }
        if plan.kv_cache is not None:
            config["kv_cache_scheme"] = plan.kv_cache.model_dump(mode="json")
        return config

    def extra_files(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """None."""
        return {}

    def stored_name(self, stored: str, parameter: str, prefix: str) -> str:
        """As it was."""
        return stored


def _module(module: PlannedModule) -> dict[str, Any]:
    group, info = module.group, module.info
    assert group is not None
    kind = "pairs" if group.method.name == "olive" else {"int": "integers"}.get(group.weights.type, "float8")
    found: dict[str, Any] = {"layout": kind, "num_bits": group.weights.num_bits, "shape": [info.rows, info.columns]}
    if group.input_activations is not None:
        found["input_activations"] = group.input_activations.model_dump(mode="json")
    return found


def _integers(matrix: Quantized) -> Iterable[tuple[str, torch.Tensor]]:
    rows, zero = len(matrix.codes), matrix.grid.zero
    yield "codes", pack_to_int32(matrix.codes, matrix.args.num_bits)
    yield "scale", matrix.grid.scale.expand(rows, -1)
    if zero is not None:
        yield "zero", zero.to(matrix.grid.scale.dtype).expand(rows, -1)


def _pairs(matrix: Pairs) -> Iterable[tuple[str, torch.Tensor]]:
    yield "codes", matrix.codes[:, ::2] | (matrix.codes[:, 1::2] << 4)
    yield "scale", matrix.scale.expand(len(matrix.codes), -1)


def _float8(matrix: Float8) -> Iterable[tuple[str, torch.Tensor]]:
    yield "codes", matrix.codes
    yield "scale", matrix.scale.expand(len(matrix.codes), -1)
