"""GPTQ files, as AutoGPTQ began them: ``gptq`` (v1) stores zero points minus one, ``gptq_v2`` as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from quantrecipe.errors import BackendError
from quantrecipe.modeling.plan import Plan
from quantrecipe.plugins.native.formats.base import refuse_matrix
from quantrecipe.plugins.native.formats.packing import pack_to_int32
from quantrecipe.plugins.native.qparams import Matrix, Quantized, Storage
from quantrecipe.recipe import GptqMethod, Group

BITS = (2, 3, 4, 8)


@dataclass(frozen=True, slots=True)
class Gptq:
    """qweight, qzeros, scales, g_idx; one scheme for the whole model, weight-only."""

    name: Literal["gptq", "gptq_v2"]
    unties: bool = True  # as AutoGPTQ's files do, and as loaders without tying expect

    def check(self, plan: Plan) -> None:
        """One scheme, 2, 3, 4 or 8 bits, 16-bit inputs, sizes that fill whole words."""
        if plan.kv_cache is not None:
            raise _cannot("kv_cache_scheme", f"{plan.kv_cache.num_bits} bits", "weights")
        schemes = {(m.group.weights, m.group.input_activations) for m in plan.quantized if m.group}
        if len(schemes) > 1:
            raise _cannot("more than one scheme in a model", len(schemes), "one scheme for all layers")
        weights, inputs = next(iter(schemes))
        if inputs is not None:
            raise _cannot("quantized activations", f"{inputs.num_bits} bits", "weight-only schemes")
        if weights.type != "int":
            raise _cannot("this number type", weights.type, "integers")
        if weights.num_bits not in BITS:
            raise _cannot("this bit width", weights.num_bits, f"its readers know {', '.join(map(str, BITS))} bits")
        if weights.strategy == "tensor":
            raise _cannot("one scale a tensor", "strategy tensor", "strategies channel and group")
        for module in plan.quantized:
            if module.info.is_embedding:
                raise _cannot("a quantized embedding", module.name, "linear layers")
            _check_words(module.name, module.info.rows, module.info.columns, weights.num_bits)

    def storage(self, model_dtype: torch.dtype, compute_dtype: torch.dtype) -> Storage:
        """fp16 scales and products; v1 cannot store a zero point of 0."""
        return Storage(torch.float16, torch.float16, min_zero=1 if self.name == "gptq" else 0)

    def tensors(self, matrix: Matrix, as_bytes: bool) -> Iterable[tuple[str, torch.Tensor]]:
        """qweight int32 [K b / 32, N], qzeros int32 [G, N b / 32], scales fp16 [G, N], g_idx int32 [K].

        The packer adds 2^(b-1) to signed codes: unsigned codes as GPTQ has them.
        """
        if not isinstance(matrix, Quantized):
            raise refuse_matrix(self.name, matrix)
        bits, grid, codes = matrix.args.num_bits, matrix.grid, matrix.codes
        zero = torch.zeros_like(grid.scale, dtype=torch.int16) if grid.zero is None else grid.zero
        stored_zero = (zero - int(self.name == "gptq")).to(torch.int8)
        columns = codes.shape[1]
        yield "qweight", pack_to_int32(codes, bits).t().contiguous()
        yield "qzeros", pack_to_int32(stored_zero, bits, packed_dim=0).t().contiguous()
        yield "scales", grid.scale.t().contiguous()
        yield "g_idx", (torch.arange(columns) // (columns // grid.scale.shape[1])).to(torch.int32)

    def config(self, plan: Plan) -> dict[str, Any]:
        """quantize_config.json's object; ``dynamic`` names what inside the blocks was left alone."""
        group = plan.quantized[0].group or Group.model_validate("w4a16-g128")
        method = group.method if isinstance(group.method, GptqMethod) else None
        left = [one.name for one in plan.modules if one.group is None and one.info.block is not None]
        config: dict[str, Any] = {
            "quant_method": "gptq",
            "checkpoint_format": self.name,
            "bits": group.weights.num_bits,
            "group_size": group.weights.group_size or -1,
            "sym": group.weights.symmetric,
            "desc_act": False,
            "static_groups": bool(method and method.actorder == "static"),
            "true_sequential": True,
            "damp_percent": method.dampening_frac if method else 0.01,
            "lm_head": False,
            "meta": {"quantizer": ["quantrecipe"]},
        }
        if left:
            config["dynamic"] = {f"-:^{re.escape(name)}$": {} for name in left}
        return config

    def extra_files(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """The same object in the file where AutoGPTQ looks."""
        return {"quantize_config.json": self.config(plan)}

    def stored_name(self, stored: str, parameter: str, prefix: str) -> str:
        """GPTQ readers want full names: GPT-2's ``h.0…`` becomes ``transformer.h.0…``."""
        return parameter if parameter == f"{prefix}.{stored}" else stored


def _cannot(what: str, value: object, limit: str) -> BackendError:
    return BackendError(
        f"GPTQ files cannot hold {what}", value=value, limit=limit, remedy="set format: compressed-tensors"
    )


def _check_words(name: str, rows: int, columns: int, bits: int) -> None:
    for size, what in ((columns, "inputs"), (rows, "outputs")):
        if size * bits % 32:
            raise BackendError(
                f"GPTQ files need the {what} of {name} to fill whole 32-bit words at {bits} bits",
                value=size,
                limit=f"a multiple of {32 if bits == 3 else 32 // bits}",
                remedy="set format: compressed-tensors, or add the layer to ignore",
            )
