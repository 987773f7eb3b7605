"""compressed-tensors: integers packed (weight-only) or as bytes (with quantized inputs), fp8, MXFP4 and NVFP4.

Packing, config classes and target matching are the compressed-tensors library's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from compressed_tensors import __version__ as library_version
from compressed_tensors.quantization import QuantizationArgs as LibraryArgs
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme, QuantizationStatus

from quantrecipe.errors import BackendError
from quantrecipe.modeling.plan import Plan, PlannedModule
from quantrecipe.plugins.native.formats.base import refuse_matrix
from quantrecipe.plugins.native.formats.packing import pack_to_int32
from quantrecipe.plugins.native.methods.fp8 import Float8
from quantrecipe.plugins.native.methods.microscaling import MX_GROUP, Float4
from quantrecipe.plugins.native.qparams import Matrix, Quantized, Storage
from quantrecipe.recipe import Group
from quantrecipe.schemes import QuantizationArgs

PACKED, INT, FLOAT = "pack-quantized", "int-quantized", "float-quantized"
MXFP4, NVFP4 = "mxfp4-pack-quantized", "nvfp4-pack-quantized"
#: FP4 packs the earlier of two numbers into the low nibble.
LOW_FIRST = (0, 4)
#: Every expert's matrices, shared experts not among them, by any reader's names.
EXPERTS = r"re:.*\.experts\.\d+\..*"
#: Keys that readers older than compressed-tensors 0.13 forbid (INTEROP.md).
NEW_KEYS = ("scale_dtype", "zp_dtype")


class CompressedTensors:
    """The format of vLLM, SGLang and transformers."""

    name = "compressed-tensors"
    unties = False

    def check(self, plan: Plan) -> None:
        """Only a plain Linear is looked at by its readers; GPT-2's Conv1D and Falcon's own class are not."""
        for module in plan.quantized:
            group = module.group
            if group is not None and (group.weights.type not in ("int", "float") or group.method.name == "olive"):
                raise BackendError(
                    "compressed-tensors cannot hold these weights",
                    value=f"{group.weights.type} by {group.method.name}",
                    remedy="set format: auto",
                )
            if not module.info.is_plain:
                raise BackendError(
                    "compressed-tensors cannot hold a layer that is no plain Linear",
                    value=module.name,
                    limit="its readers would skip them in silence",
                    remedy="set format: gptq",
                )

    def storage(self, model_dtype: torch.dtype, compute_dtype: torch.dtype) -> Storage:
        """Scales in the model's dtype; loaders cast them before they multiply."""
        return Storage(model_dtype, compute_dtype)

    def tensors(self, matrix: Matrix, as_bytes: bool) -> Iterable[tuple[str, torch.Tensor]]:
        """weight_packed int32 [N, ceil(K b / 32)] or weight int8 or fp8 [N, K]; weight_scale; weight_zero_point."""
        if isinstance(matrix, Quantized):
            return _integers(matrix, as_bytes)
        if isinstance(matrix, Float8):
            return _float8(matrix)
        if isinstance(matrix, Float4):
            return _float4(matrix)
        raise refuse_matrix(self.name, matrix)

    def config(self, plan: Plan) -> dict[str, Any]:
        """The library's QuantizationConfig, without the keys that older readers refuse."""
        groups = {name: _scheme(modules[0], targets) for name, modules, targets in _groups(plan)}
        formats = {scheme.format for scheme in groups.values()}
        config = QuantizationConfig(
            config_groups=groups,
            format=formats.pop() if len(formats) == 1 else "mixed-precision",
            quantization_status=QuantizationStatus.COMPRESSED,
            kv_cache_scheme=library_args(plan.kv_cache) if plan.kv_cache else None,
            ignore=[
                name
                for one in plan.modules
                if one.group is None and one.info.kind != "Embedding"
                for name in one.info.names
            ],
        )
        data: dict[str, Any] = config.model_dump(mode="json")
        for group in data["config_groups"].values():
            for part in ("weights", "input_activations"):
                group[part] = _without_new_keys(group[part])
        data["kv_cache_scheme"] = _without_new_keys(data["kv_cache_scheme"])
        return {"version": library_version, **data, "sparsity_config": {}, "transform_config": {}}

    def extra_files(self, plan: Plan) -> dict[str, dict[str, Any]]:
        """None."""
        return {}

    def stored_name(self, stored: str, parameter: str, prefix: str) -> str:
        """As it was."""
        return stored


def _integers(matrix: Quantized, as_bytes: bool) -> Iterable[tuple[str, torch.Tensor]]:
    args, grid, codes = matrix.args, matrix.grid, matrix.codes
    whole = args.strategy == "tensor"
    if as_bytes:
        yield "weight", codes
    else:
        yield "weight_packed", pack_to_int32(codes, args.num_bits)
        yield "weight_shape", torch.tensor(codes.shape)
    yield "weight_scale", grid.scale.reshape(1) if whole else grid.scale
    if grid.zero is not None:
        zero = grid.zero.to(torch.int8)
        packed = not as_bytes and not whole
        yield "weight_zero_point", _pack_rows(zero, args.num_bits) if packed else _plain(zero, whole)


def _float8(matrix: Float8) -> Iterable[tuple[str, torch.Tensor]]:
    yield "weight", matrix.codes
    yield "weight_scale", matrix.scale.reshape(1) if matrix.args.strategy == "tensor" else matrix.scale


def _float4(matrix: Float4) -> Iterable[tuple[str, torch.Tensor]]:
    first, second = LOW_FIRST
    yield "weight_packed", (matrix.codes[:, ::2] << first) | (matrix.codes[:, 1::2] << second)
    yield "weight_scale", matrix.scale
    if matrix.whole is not None:
        yield "weight_global_scale", matrix.whole


def _pack_rows(zero: torch.Tensor, bits: int) -> torch.Tensor:
    packed: torch.Tensor = pack_to_int32(zero, bits, packed_dim=0)
    return packed.contiguous()


def _plain(zero: torch.Tensor, whole: bool) -> torch.Tensor:
    return zero.reshape(1) if whole else zero


def _scheme(module: PlannedModule, targets: list[str]) -> QuantizationScheme:
    group = module.group
    assert group is not None
    inputs = group.input_activations
    return QuantizationScheme(
        targets=targets,
        weights=library_args(group.weights, getattr(group.method, "actorder", None)),
        input_activations=library_args(inputs) if inputs else None,
        format=layout(group, module.as_bytes),
    )


def layout(group: Group, as_bytes: bool) -> str:
    """The library's name for how a group's weights are stored."""
    if group.weights.type == "int":
        return INT if as_bytes else PACKED
    if group.weights.num_bits == 8:
        return FLOAT
    return MXFP4 if group.weights.group_size == MX_GROUP else NVFP4


def library_args(args: QuantizationArgs, actorder: str | None = None) -> LibraryArgs:
    """The library's own class; every act-order that is written keeps columns in place, which it calls static."""
    small = args.type == "float" and args.num_bits == 4
    nv = small and args.group_size != MX_GROUP
    return LibraryArgs(
        num_bits=args.num_bits,
        type=args.type,
        symmetric=args.symmetric,
        strategy="tensor_group" if nv else args.strategy,
        group_size=args.group_size,
        block_structure=list(args.block_structure) if args.block_structure else None,
        dynamic=args.dynamic,
        actorder="static" if actorder else None,
        observer=None if args.dynamic else args.observer or "minmax",
        scale_dtype=(torch.float8_e4m3fn if nv else torch.uint8) if small else None,
    )


def _without_new_keys(args: dict[str, Any] | None) -> dict[str, Any] | None:
    """FP4 groups alone keep the type of their scales: no older reader knows them."""
    return args and {
        key: value
        for key, value in args.items()
        if key not in NEW_KEYS or (key == "scale_dtype" and args["type"] == "float" and args["num_bits"] == 4)
    }


def _groups(plan: Plan) -> list[tuple[str, list[PlannedModule], list[str]]]:
    """(name, modules of one layout, targets), such that every reader gives each module the plan's group.

    Readers prefer a module's own name to its class, but differ over patterns; so the group with the most linear
    layers is targeted by class, the others and embeddings by full names. transformers takes the scheme of experts
    from the first group with a pattern for them: beside other groups, one that has them all gets that pattern.
    """
    members: dict[str, list[PlannedModule]] = {}
    bare = {one.group_name for one in plan.quantized if one.group and not one.group.input_activations}
    both = {one.group_name for one in plan.quantized if not one.info.is_embedding} & bare
    for module in plan.quantized:
        name = module.group_name or "main"
        apart = module.info.is_embedding and name in both
        members.setdefault(f"{name}.embeddings" if apart else name, []).append(module)
    linears = {name: sum(not one.info.is_embedding for one in modules) for name, modules in members.items()}
    largest = max(linears, key=lambda name: linears[name])
    return [
        (name, modules, _targets(plan, name, modules, name == largest and linears[name] > 0))
        for name, modules in members.items()
    ]


def _targets(plan: Plan, group_name: str, modules: list[PlannedModule], largest: bool) -> list[str]:
    beside = len({one.group_name for one in plan.quantized}) > 1
    together = beside and {one.group_name for one in plan.modules if one.info.is_expert} == {group_name}
    listed = [
        name
        for one in modules
        if not (together and one.info.is_expert) and (one.info.is_embedding or not largest)
        for name in one.info.names
    ]
    return ([EXPERTS] if together else []) + (["Linear"] if largest else []) + listed
