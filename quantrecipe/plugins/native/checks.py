"""What the native backend refuses before it begins."""

from __future__ import annotations

from quantrecipe.errors import BackendError, did_you_mean
from quantrecipe.modeling.plan import Plan, PlannedModule
from quantrecipe.plugins.contract import Job
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.plugins.native.formats.base import Format
from quantrecipe.recipe import Group
from quantrecipe.recipe_transforms import LorcCompensation
from quantrecipe.schemes import QuantizationArgs

FEWEST_TOKENS = 128
#: What one scale of each number type may serve.
STRATEGIES = {
    "int": ("tensor", "channel", "group"),
    "float": ("tensor", "channel", "group", "block"),
    "e5m2": ("tensor", "channel", "group"),
    "nf4": ("group",),
    "fp4": ("group",),
}
INPUT_BITS = {"int": (4, 5, 6, 7, 8), "float": (8,), "e5m2": (8,)}


def check_job(job: Job, form: Format) -> None:
    """Raises BackendError for the first thing that the job asks for and the backend lacks."""
    for module in job.plan.quantized:
        if module.group is not None:
            _check_module(module, module.group)
            _check_rank(job, module)
    form.check(job.plan)
    _check_calibration(job, job.plan)


def _check_module(module: PlannedModule, group: Group) -> None:
    name, args = group.method.name, group.weights
    able = NativeBackend().capabilities()
    if name not in able.methods:
        raise BackendError(
            "the native backend has no such method",
            value=name,
            limit=", ".join(able.methods),
            remedy=did_you_mean(name, able.methods),
        )
    if not able.takes(name, args.type):
        raise BackendError(f"{name} has integer weights only", value=f"{args.num_bits}-bit {args.type}")
    if args.num_bits not in able.weight_bits.get(args.type, ()):
        raise BackendError("the native backend has no such weights", value=f"{args.num_bits}-bit {args.type}")
    _check_strategy(args)
    _check_symmetry(name, args)
    if group.input_activations is not None:
        check_input_args(group.input_activations, module.name, module.info.columns)
    if module.info.is_embedding:
        _check_embedding(module, group)


def _check_embedding(module: PlannedModule, group: Group) -> None:
    """A table of rows: codes and scales of each row alone, no inputs to round."""
    args, remedy = group.weights, "give the embedding a group of its own, such as w8a16 by rtn"
    bytes_each = args.type == "int" and args.num_bits == 8 and args.strategy in ("channel", "group")
    if group.method.name != "rtn" or not bytes_each:
        raise BackendError(
            f"the embedding {module.name} cannot be quantized so",
            value=f"{args.num_bits}-bit {args.type} {args.strategy} by {group.method.name}",
            limit="8-bit integers, by channel or group, by rtn; transformers loads no packed embedding",
            remedy=remedy,
        )
    if group.input_activations is not None:
        raise BackendError("an embedding has no inputs to quantize", value=module.name, remedy=remedy)


def _check_strategy(args: QuantizationArgs) -> None:
    if args.strategy not in STRATEGIES[args.type]:
        limit = ", ".join(STRATEGIES[args.type])
        raise BackendError(f"{args.type} weights cannot be quantized so", value=args.strategy, limit=limit)
    if (
        args.type == "float"
        and args.num_bits == 4
        and (args.strategy, args.group_size)
        not in (
            ("group", 16),
            ("group", 32),
        )
    ):
        raise BackendError(
            "4-bit floats come in groups of 16 (nvfp4) or 32 (mxfp4)", value=args.group_size or args.strategy
        )
    if args.scale is not None and args.type not in ("nf4", "fp4"):
        raise BackendError("only nf4 and fp4 have scales that are quantized themselves", value=args.type)


def _check_symmetry(method: str, args: QuantizationArgs) -> None:
    if method == "hqq" and args.symmetric:
        raise BackendError("hqq solves for zero points", value="symmetric", remedy="use a scheme with -asym")
    if method in ("odyssey", "glm-int4", "llm-int8", "olive") and not args.symmetric:
        raise BackendError(f"{method} has symmetric weights", value="asymmetric", remedy="leave -asym out")


def check_input_args(args: QuantizationArgs, name: str, columns: int) -> None:
    """Raises BackendError where the inputs of a layer of ``columns`` cannot be rounded so."""
    if args.num_bits not in INPUT_BITS.get(args.type, ()):
        limit = "int 4-8, float 8 (e4m3), e5m2"
        raise BackendError(
            f"inputs of {name} cannot be rounded so", value=f"{args.num_bits}-bit {args.type}", limit=limit
        )
    if args.group_size and columns % args.group_size:
        raise BackendError(
            f"group_size of input_activations does not divide the {columns} inputs of {name}", value=args.group_size
        )


def _check_rank(job: Job, module: PlannedModule) -> None:
    part = job.recipe.quantization.compensation
    if not isinstance(part, LorcCompensation) or module.info.block is None or module.info.is_expert:
        return
    if part.rank * 2 > min(module.info.rows, module.info.columns):
        raise BackendError(
            f"lorc's rank is no low rank for {module.name}, a matrix of {module.info.rows} x {module.info.columns}",
            value=part.rank,
            limit=f"at most {min(module.info.rows, module.info.columns) // 2}",
        )


def _check_calibration(job: Job, plan: Plan) -> None:
    if not plan.needs_calibration:
        return
    tokens = 0 if job.calibration is None else job.calibration.numel()
    if tokens < FEWEST_TOKENS:
        raise BackendError(
            "this recipe needs calibration text", value=f"{tokens} tokens", limit=f"at least {FEWEST_TOKENS}"
        )
