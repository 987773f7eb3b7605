"""How numbers are stored: QuantizationArgs, and the named presets, in compressed-tensors' vocabulary."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from quantrecipe.scheme_facts import PRESETS, WEIGHT_BITS, scheme_facts, unknown_scheme

__all__ = ["PRESETS", "WEIGHT_BITS", "QuantizationArgs", "ScaleArgs", "Scheme", "parse_scheme"]

Strategy = Literal["tensor", "channel", "group", "block", "token", "attn_head"]
NumberType = Literal["int", "float", "e5m2", "nf4", "fp4"]
Observer = Literal["minmax", "percentile", "mse"]


class ScaleArgs(BaseModel):
    """A scale that is itself quantized (QLoRA's double quantization): bits, and scales a block."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    num_bits: Literal[8] = 8
    group_size: int = Field(256, gt=0)


class QuantizationArgs(BaseModel):
    """How one tensor's numbers are stored; the fields of compressed-tensors' class of this name, and a few more.

    type: ``float`` is e4m3 at 8 bits. scale: how scales are stored themselves. observer: how a static
    range is found on calibration text; percentile: the share of values, in percent, that ``percentile`` keeps inside.
    outlier_threshold: inputs of features with a value of at least this size are not rounded (LLM.int8()).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    num_bits: int = Field(ge=2, le=15)
    type: NumberType = "int"
    symmetric: bool = True
    strategy: Strategy = "tensor"
    group_size: int | None = None
    block_structure: tuple[int, int] | None = None
    dynamic: bool = False
    scale: ScaleArgs | None = None
    observer: Observer | None = None
    percentile: float = Field(99.99, gt=50, le=100)
    outlier_threshold: float | None = Field(None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _group_size_implies_strategy(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("group_size") is not None and "strategy" not in data:
            return {**data, "strategy": "group"}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> QuantizationArgs:
        fault = _fault(self)
        if fault:
            raise ValueError(fault)
        return self


def _fault(args: QuantizationArgs) -> str | None:
    """What contradicts what in the arguments, with the remedy; None where nothing does."""
    if args.strategy == "group" and (args.group_size or 0) <= 0:
        return "strategy 'group' needs group_size > 0; use strategy 'channel' for one scale a row"
    if args.strategy not in ("group", "token") and args.group_size is not None:
        return f"group_size {args.group_size} needs strategy 'group', not {args.strategy!r}"
    if (args.strategy == "block") != (args.block_structure is not None):
        return "strategy 'block' and block_structure [rows, columns] go together"
    if args.type == "float" and args.num_bits not in (4, 8):
        return f"num_bits {args.num_bits} has no float format; use 8 (fp8) or 4 (mxfp4, nvfp4)"
    if args.type == "e5m2" and args.num_bits != 8:
        return f"type 'e5m2' has num_bits 8, not {args.num_bits}"
    if args.type != "int" and not args.symmetric:
        return f"type {args.type!r} is symmetric; set symmetric: true"
    if args.observer and args.dynamic:
        return "an observer finds static ranges; set dynamic: false, or leave observer out"
    if args.type in ("nf4", "fp4") and args.num_bits != 4:
        return f"type {args.type!r} has num_bits 4, not {args.num_bits}"
    return None


def activation_fault(args: QuantizationArgs) -> str | None:
    """Why a layer's inputs cannot be rounded so; None where they can."""
    if args.type in ("nf4", "fp4") or args.scale:
        return f"inputs are integers or fp8, not {args.type}"
    if args.strategy not in ("tensor", "token", "group"):
        return f"inputs have strategy token, group or tensor, not {args.strategy!r}"
    if args.strategy != "tensor" and not args.dynamic:
        return f"strategy {args.strategy!r} for inputs needs dynamic: true; static scales have strategy tensor"
    return None


def kv_cache_fault(args: QuantizationArgs) -> str | None:
    """Why keys and values cannot be rounded so; None where they can."""
    if args.type not in ("int", "float") or args.scale or args.outlier_threshold:
        return f"the KV cache holds integers or fp8 (type float), not {args.type}"
    if args.strategy in ("channel", "block"):
        return f"kv_cache_scheme has strategy token, group, tensor or attn_head, not {args.strategy!r}"
    if args.dynamic != (args.strategy in ("token", "group")):
        return "kv_cache_scheme is dynamic with strategy token or group (of a head), static with tensor or attn_head"
    return None


class Scheme(NamedTuple):
    """A preset: how the weights and (None = not quantized) the inputs of a linear layer are stored."""

    name: str
    weights: QuantizationArgs
    input_activations: QuantizationArgs | None


_FP8 = QuantizationArgs(num_bits=8, type="float", strategy="channel")
_FP8_TOKEN = QuantizationArgs(num_bits=8, type="float", strategy="token", dynamic=True)
_NAMED = {
    "fp8": (_FP8, _FP8_TOKEN),
    "nf4": (QuantizationArgs(num_bits=4, type="nf4", strategy="group", group_size=64), None),
    "nf4-dq": (
        QuantizationArgs(num_bits=4, type="nf4", strategy="group", group_size=64, scale=ScaleArgs()),
        None,
    ),
    "mxfp4": (QuantizationArgs(num_bits=4, type="float", strategy="group", group_size=32), None),
    "nvfp4": (QuantizationArgs(num_bits=4, type="float", strategy="group", group_size=16), None),
}


def parse_scheme(name: str) -> Scheme:
    """The scheme of that name. Raises QuantRecipeError naming the nearest presets where there is none."""
    facts = scheme_facts(name)
    if facts.name in _NAMED:
        return Scheme(facts.name, *_NAMED[facts.name])
    if facts.bits == 16:
        raise unknown_scheme(name)
    weights = _integer_weights(facts.bits, facts.group, facts.symmetric)
    return Scheme(facts.name, weights, _activations(facts.act_bits, facts.act_group))


def _integer_weights(bits: int, group: int, symmetric: bool) -> QuantizationArgs:
    if group:
        return QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy="group", group_size=group)
    return QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy="channel")


def _activations(bits: int, group: int) -> QuantizationArgs | None:
    if bits == 16:
        return None
    if group:
        return QuantizationArgs(num_bits=bits, strategy="group", group_size=group, dynamic=True)
    return QuantizationArgs(num_bits=bits, strategy="token", dynamic=True)


def scheme_name(weights: QuantizationArgs, inputs: QuantizationArgs | None) -> str:
    """The shortest name of a pair of arguments, for tables; the inverse of parse_scheme on integer presets."""
    for name, pair in _NAMED.items():
        if pair == (weights, inputs):
            return name
    kind = "" if weights.type == "int" else f"{weights.type}-"
    name = f"{kind}w{weights.num_bits}a{inputs.num_bits if inputs else 16}"
    if weights.strategy == "group":
        name += f"-g{weights.group_size}"
    if weights.strategy in ("tensor", "block"):
        name += f"-{weights.strategy}"
    if inputs and inputs.strategy == "group":
        name += f"-ag{inputs.group_size}"
    if inputs and inputs.strategy == "tensor":
        name += "-static" if not inputs.dynamic else "-atensor"
    return name if weights.symmetric else f"{name}-asym"


def scale_count(args: QuantizationArgs, rows: int, columns: int) -> int:
    """How many scales a weight of [rows, columns] has; columns is the input dimension K."""
    if args.strategy == "tensor":
        return 1
    if args.strategy == "block" and args.block_structure:
        height, width = args.block_structure
        return -(-rows // height) * -(-columns // width)
    if args.strategy == "group" and args.group_size:
        return rows * -(-columns // args.group_size)
    return rows


def scale_bits(args: QuantizationArgs) -> float:
    """Bits of one scale with its zero point, as stored.

    16 for integers and fp8; bitsandbytes keeps fp32 for nf4 and fp4, or 8 bits and an fp32 per block of
    scales (QLoRA, section 3: 0.127 bits a weight at group 64); OCP MX and NVFP4 keep 8.
    """
    if args.scale:
        return args.scale.num_bits + 32 / args.scale.group_size
    if args.type in ("nf4", "fp4"):
        return 32
    if args.type == "float" and args.num_bits == 4:
        return 8
    return 16 if args.symmetric else 16 + args.num_bits


def bits_per_weight(args: QuantizationArgs, rows: int, columns: int) -> float:
    """True bits a weight of [rows, columns]: codes, scales and zero points."""
    return args.num_bits + scale_bits(args) * scale_count(args, rows, columns) / (rows * columns)
