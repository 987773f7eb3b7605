"""Bytes of one quantized matrix in each checkpoint format, tensor by tensor.

Layouts: the loaders of compressed-tensors 0.19, AutoGPTQ, AutoAWQ, bitsandbytes 0.50 and llama.cpp. For a weight
of [N rows, K columns], b bits and groups of g: G = ceil(K / g) scales a row, one a row without groups.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import NamedTuple

from quantrecipe.errors import QuantRecipeError, did_you_mean
from quantrecipe.scheme_facts import SchemeFacts


class Stored(NamedTuple):
    """Bytes of one matrix: ``codes``; ``scales`` with zero points; ``extra``: shapes, g_idx, code books."""

    codes: int
    scales: int
    extra: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.codes + self.scales + self.extra


def _words(bits: int) -> int:
    """Bytes of that many bits in int32 words."""
    return -(-bits // 32) * 4


def groups_of(scheme: SchemeFacts, columns: int) -> int:
    """Scales a row."""
    return -(-columns // scheme.group) if scheme.group else 1


def compressed_tensors(scheme: SchemeFacts, rows: int, columns: int) -> Stored:
    """compressed-tensors: pack-quantized weights, or int8 and fp8 where the inputs are quantized too.

    weight_packed int32 [N, ceil(K b / 32)], weight_scale [N, G] in 16 bits, weight_zero_point int32
    [ceil(N b / 32), G] if asymmetric, weight_shape int64 [2]. With int8 inputs weights of any width are
    whole int8 [N, K] (int-quantized), which is what vLLM reads.
    """
    per_row = groups_of(scheme, columns)
    if scheme.type == "float" and scheme.bits == 4:  # mxfp4: e8m0 scales; nvfp4: e4m3 and one fp32 a tensor
        return Stored(rows * columns // 2, rows * per_row, 4 if scheme.group == 16 else 0)
    scales = rows * per_row * 2
    if scheme.act_bits < 16:
        return Stored(rows * columns, scales, 0)
    zeros = 0 if scheme.symmetric else _words(rows * scheme.bits) * per_row
    return Stored(rows * _words(columns * scheme.bits), scales + zeros, 16)


class Tensor(NamedTuple):
    """One stored tensor of a matrix. dtype: safetensors' name; "" is the model's own."""

    suffix: str
    dtype: str
    shape: tuple[int, ...]

    def nbytes(self, model_item: int = 2) -> int:
        """Bytes of its data, where a number of the model takes ``model_item``."""
        return prod(self.shape) * {"I64": 8, "I32": 4, "": model_item}[self.dtype]


def packed_tensors(scheme: SchemeFacts, rows: int, columns: int) -> list[Tensor]:
    """What ``compressed_tensors`` counts for a weight-only matrix of integers, tensor by tensor."""
    per_row = groups_of(scheme, columns)
    codes = Tensor("weight_packed", "I32", (rows, _words(columns * scheme.bits) // 4))
    zeros = Tensor("weight_zero_point", "I32", (_words(rows * scheme.bits) // 4, per_row))
    found = [codes, Tensor("weight_scale", "", (rows, per_row)), Tensor("weight_shape", "I64", (2,))]
    return found if scheme.symmetric else [*found, zeros]


def own_tensors(scheme: SchemeFacts, rows: int, columns: int) -> list[Tensor]:
    """quantrecipe's own layout of integers (docs/formats.md): zero points need not be whole."""
    per_row = groups_of(scheme, columns)
    codes = Tensor("codes", "I32", (rows, _words(columns * scheme.bits) // 4))
    found = [codes, Tensor("scale", "", (rows, per_row))]
    return found if scheme.symmetric else [*found, Tensor("zero", "", (rows, per_row))]


def own(scheme: SchemeFacts, rows: int, columns: int) -> Stored:
    """quantrecipe's own layout: a dense bit stream at any width of the inputs, or fp8 codes; numbers in 16 bits."""
    if scheme.type == "float":
        return Stored(rows * columns * scheme.bits // 8, rows * groups_of(scheme, columns) * 2, 0)
    codes, *scales = own_tensors(scheme, rows, columns)
    return Stored(codes.nbytes(), sum(one.nbytes() for one in scales), 0)


def gptq(scheme: SchemeFacts, rows: int, columns: int) -> Stored:
    """AutoGPTQ: qweight int32 [K b / 32, N], scales fp16 and qzeros [G, N] always, g_idx int32 [K]."""
    per_row = groups_of(scheme, columns)
    zeros = _words(rows * scheme.bits) * per_row
    return Stored(rows * _words(columns * scheme.bits), rows * per_row * 2 + zeros, columns * 4)


def awq(scheme: SchemeFacts, rows: int, columns: int) -> Stored:
    """AutoAWQ GEMM: as GPTQ without g_idx."""
    return gptq(scheme, rows, columns)._replace(extra=0)


def bitsandbytes(scheme: SchemeFacts, rows: int, columns: int) -> Stored:
    """bitsandbytes: int8 with an fp32 a row, or 4 bits with an fp32 (or 8 bits, twice quantized) a block."""
    if scheme.bits == 8:
        return Stored(rows * columns, rows * 4, 0)
    blocks = -(-rows * columns // (scheme.group or 64))
    if scheme.double_quantized:
        return Stored(rows * columns // 2, blocks + -(-blocks // 256) * 4, 64 + 1024 + 4)
    return Stored(rows * columns // 2, blocks * 4, 64)


def gguf(scheme: SchemeFacts, rows: int, columns: int) -> Stored:
    """llama.cpp's plain blocks of 32: q8_0, q5_0/1, q4_0/1: an fp16 scale, and an fp16 minimum if asymmetric."""
    blocks = rows * -(-columns // 32)
    return Stored(blocks * 4 * scheme.bits, blocks * (2 if scheme.symmetric else 4), 0)


Layout = Callable[[SchemeFacts, int, int], Stored]
LAYOUTS: dict[str, Layout] = {
    "compressed-tensors": compressed_tensors,
    "gptq": gptq,
    "gptq_v2": gptq,
    "awq": awq,
    "bitsandbytes": bitsandbytes,
    "gguf": gguf,
    "quantrecipe": own,
}
KEEPS_TIED_TWICE = ("gptq", "gptq_v2", "awq")
_BITS = {
    "gptq": ("int", (2, 3, 4, 8)), "gptq_v2": ("int", (2, 3, 4, 8)), "awq": ("int", (4,)), "gguf": ("int", (4, 5, 8)),
}  # fmt: skip


def default_format(scheme: SchemeFacts) -> str:
    """The format that holds this scheme and that most engines read.

    2- and 3-bit weights go out as GPTQ, version 2 where they are asymmetric (version 1 cannot hold a zero of 0):
    readers of compressed-tensors take zero points at 4 and 8 bits only, older ones no other bits at all.
    """
    if scheme.type in ("nf4", "fp4"):
        return "bitsandbytes"
    if scheme.type == "int" and scheme.bits in (2, 3) and scheme.act_bits == 16:
        return "gptq" if scheme.symmetric else "gptq_v2"
    return "compressed-tensors"


def check_format(scheme: SchemeFacts, name: str) -> str:
    """``name``, or the scheme's default for ``auto``. Raises QuantRecipeError where it cannot hold the scheme."""
    if name == "auto":
        return default_format(scheme)
    if name not in LAYOUTS:
        raise QuantRecipeError(
            "unknown output format", value=name, limit=", ".join(LAYOUTS), remedy=did_you_mean(name, LAYOUTS)
        )
    fault = format_fault(scheme, name)
    if fault:
        remedy = f"use {default_format(scheme)}"
        raise QuantRecipeError(f"format {name} cannot hold {scheme.name}", limit=fault, remedy=remedy)
    return name


def format_fault(scheme: SchemeFacts, name: str) -> str | None:
    """Why a format cannot hold a scheme; None where it can."""
    if scheme.bits == 16:
        return None
    if name in _BITS:
        kind, bits = _BITS[name]
        if scheme.type != kind or scheme.bits not in bits or scheme.act_bits < 16:
            return f"it holds weight-only integers of {', '.join(map(str, bits))} bits"
    if name == "gguf" and scheme.group not in (0, 32):
        return "its plain types have groups of 32"
    codebook = scheme.type in ("nf4", "fp4")
    if name == "bitsandbytes" and not codebook and (scheme.type, scheme.bits, scheme.group) != ("int", 8, 0):
        return "it holds nf4, fp4, and 8-bit integers with one scale a row"
    if name in ("compressed-tensors", "quantrecipe") and codebook:
        return f"it has no {scheme.type} code book"
    return None
