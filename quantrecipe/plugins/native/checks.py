"""What the native backend refuses before it begins."""

from __future__ import annotations

from quantrecipe.errors import BackendError
from quantrecipe.modeling.plan import Plan, PlannedModule
from quantrecipe.plugins.contract import Job
from quantrecipe.plugins.native.activations import check_input_args
from quantrecipe.plugins.native.backend import CAPABILITIES
from quantrecipe.plugins.native.formats.base import Format
from quantrecipe.recipe import GptqMethod, Group, RtnMethod
from quantrecipe.recipe_transforms import LorcCompensation

FEWEST_TOKENS = 128


def check_job(job: Job, form: Format) -> None:
    """Raises BackendError for the first thing that the job asks for and the backend lacks."""
    if job.recipe.quantization.kv_cache_scheme:
        raise BackendError("the native backend does not carry out kv_cache_scheme yet", remedy="leave it out")
    for module in job.plan.quantized:
        if module.group is not None:
            _check_module(module, module.group)
            _check_rank(job, module)
    form.check(job.plan)
    _check_calibration(job, job.plan)


def _check_module(module: PlannedModule, group: Group) -> None:
    args = group.weights
    if module.info.kind == "Embedding":
        raise BackendError(
            "the native backend cannot quantize embeddings",
            value=module.name,
            remedy="take Embedding out of the targets",
        )
    if args.type != "int" or args.num_bits not in CAPABILITIES.weight_bits["int"]:
        raise BackendError("the native backend has integer weights only", value=f"{args.num_bits}-bit {args.type}")
    if args.strategy not in CAPABILITIES.strategies or args.dynamic:
        raise BackendError(
            "weights cannot be quantized so", value=args.strategy, limit=", ".join(CAPABILITIES.strategies)
        )
    if not isinstance(group.method, GptqMethod | RtnMethod):
        raise BackendError("the native backend has no such method", value=group.method.name, limit="rtn, gptq")
    if group.input_activations is not None:
        check_input_args(group.input_activations, module.name)


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
