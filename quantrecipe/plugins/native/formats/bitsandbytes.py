"""bitsandbytes files, as transformers' load_in_4bit and load_in_8bit save them: nf4, fp4, and int8 rows.

4 bits: ``weight`` uint8 [N K / 2, 1], the earlier of two codes in the high nibble; absmax, quant_map and, twice
quantized, nested_absmax and nested_quant_map beside it; the rest as JSON in a uint8 tensor. int8: ``weight``, SCB.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import torch

from quantrecipe.errors import BackendError
from quantrecipe.modeling.plan import Plan
from quantrecipe.plugins.native.formats.base import refuse_matrix
from quantrecipe.plugins.native.methods.llm_int8 import VectorWise
from quantrecipe.plugins.native.methods.nf4 import BLOCK_SIZES, Codebook, Nested, dynamic_map, table
from quantrecipe.plugins.native.qparams import Matrix, Storage
from quantrecipe.recipe import Group
from quantrecipe.recipe_methods import LlmInt8Method


class BitsAndBytes:
    """One scheme for the whole model; what it does not name is skipped by full name."""

    name = "bitsandbytes"
    unties = False

    def check(self, plan: Plan) -> None:
        """nf4 or fp4 in blocks that divide a row, or llm-int8; one of them for all layers, plain Linears only."""
        if plan.kv_cache is not None:
            raise _cannot("kv_cache_scheme", f"{plan.kv_cache.num_bits} bits", "weights")
        groups = [module.group for module in plan.quantized if module.group is not None]
        kinds = {(group.weights, group.method.name if _is_int8(group) else "") for group in groups}
        if len(kinds) > 1:
            raise _cannot("more than one scheme in a model", len(kinds), "one scheme for all layers")
        for module in plan.quantized:
            if not module.info.is_plain or module.info.is_embedding:
                raise _cannot("what is no plain Linear", module.name, "torch's own Linear")
        weights = groups[0].weights
        if _is_int8(groups[0]):
            return
        if weights.type not in ("nf4", "fp4"):
            raise _cannot(f"{weights.num_bits}-bit {weights.type}", groups[0].method.name, "nf4, fp4, llm-int8")
        if weights.group_size not in BLOCK_SIZES:
            raise _cannot("this block size", weights.group_size, ", ".join(map(str, BLOCK_SIZES)))
        if groups[0].input_activations is not None:
            raise _cannot("quantized inputs with 4-bit weights", weights.type, "16-bit inputs")

    def storage(self, model_dtype: torch.dtype, compute_dtype: torch.dtype) -> Storage:
        """Products in fp32, rounded to the dtype that is computed in."""
        return Storage(compute_dtype, torch.float32)

    def tensors(self, matrix: Matrix, as_bytes: bool) -> Iterable[tuple[str, torch.Tensor]]:
        """(suffix, tensor) of one module."""
        if isinstance(matrix, Codebook):
            return _four_bits(matrix)
        if isinstance(matrix, VectorWise):
            return _rows(matrix)
        raise refuse_matrix(self.name, matrix)

    def config(self, plan: Plan) -> dict[str, Any]:
        """The fields of transformers' BitsAndBytesConfig."""
        group = plan.quantized[0].group or Group.model_validate("nf4")
        weights, method = group.weights, group.method
        four = not isinstance(method, LlmInt8Method)
        return {
            "quant_method": "bitsandbytes",
            "load_in_4bit": four,
            "load_in_8bit": not four,
            "bnb_4bit_quant_type": weights.type if four else "fp4",
            "bnb_4bit_use_double_quant": weights.scale is not None,
            "bnb_4bit_compute_dtype": "float32",
            "bnb_4bit_quant_storage": "uint8",
            "llm_int8_threshold": method.threshold if isinstance(method, LlmInt8Method) else 6.0,
            "llm_int8_has_fp16_weight": False,
            "llm_int8_enable_fp32_cpu_offload": False,
            "llm_int8_skip_modules": [
                one.name for one in plan.modules if one.group is None and one.info.kind == "Linear"
            ]
            or None,
        }

    def extra_files(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """None."""
        return {}

    def stored_name(self, stored: str, parameter: str, prefix: str) -> str:
        """As it was."""
        return stored


def _is_int8(group: Group) -> bool:
    return isinstance(group.method, LlmInt8Method)


def _rows(matrix: VectorWise) -> Iterable[tuple[str, torch.Tensor]]:
    yield "weight", matrix.codes
    yield "SCB", matrix.absmax
    yield "weight_format", torch.tensor(0, dtype=torch.uint8)  # row-major


def _four_bits(matrix: Codebook) -> Iterable[tuple[str, torch.Tensor]]:
    kind, absmax = matrix.args.type, matrix.absmax
    flat = matrix.codes.flatten()
    state: dict[str, Any] = {
        "quant_type": kind,
        "blocksize": matrix.args.group_size,
        "dtype": str(matrix.dtype).removeprefix("torch."),
        "shape": list(matrix.codes.shape),
    }
    yield "weight", ((flat[::2] << 4) | flat[1::2]).unsqueeze(1)
    yield "weight.quant_map", table(kind)
    if isinstance(absmax, Nested):
        yield "weight.absmax", absmax.codes
        yield "weight.nested_absmax", absmax.absmax
        yield "weight.nested_quant_map", dynamic_map()
        state |= {"nested_blocksize": absmax.block, "nested_dtype": "float32", "nested_offset": float(absmax.offset)}
    else:
        yield "weight.absmax", absmax
    packed = bytearray(json.dumps(state).encode())
    yield f"weight.quant_state.bitsandbytes__{kind}", torch.frombuffer(packed, dtype=torch.uint8)


def _cannot(what: str, value: object, limit: str) -> BackendError:
    return BackendError(f"bitsandbytes files cannot hold {what}", value=value, limit=limit, remedy="set format: auto")
