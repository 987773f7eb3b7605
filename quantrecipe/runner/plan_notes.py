"""What a plan leaves alone by rule, and where an engine will be slow: lines for the user before the work."""

from __future__ import annotations

from collections.abc import Iterator

from quantrecipe.modeling.plan import ROUTER_RULE, Plan, PlannedModule
from quantrecipe.recipe import Recipe
from quantrecipe.runner.engine_check import FUSED

#: Sizes that the Marlin kernels of vLLM and SGLang take (marlin_utils.py: MIN_THREAD_K, MIN_THREAD_N, group sizes).
MARLIN_INPUTS, MARLIN_OUTPUTS, MARLIN_GROUPS = 128, 64, (None, 32, 64, 128)


def plan_notes(recipe: Recipe, plan: Plan, form: str) -> Iterator[str]:
    """Routers that stay as they are, and layers that the engine's fast kernels do not take."""
    routers = [module.name for module in plan.modules if module.ignored_by == ROUTER_RULE]
    if routers:
        yield f"routers stay as they are by rule: {len(routers)}, such as {routers[0]}"
    engine = (recipe.target.engine or "").lower()
    if engine in ("vllm", "sglang") and form in ("compressed-tensors", "gptq", "gptq_v2"):
        odd = [module for module in plan.quantized if not fits_marlin(module)]
        if odd:
            info = odd[0].info
            yield (
                f"{len(odd)} layers, such as {info.name} ({info.rows} x {info.columns}), do not suit {engine}'s "
                f"Marlin kernels (inputs a multiple of {MARLIN_INPUTS}, outputs of {MARLIN_OUTPUTS}, groups of 32, "
                "64 or 128): it takes a slower kernel, or refuses"
            )


def fits_marlin(module: PlannedModule) -> bool:
    """Whether a weight-only integer layer has sizes that Marlin takes; True for all else."""
    group, info = module.group, module.info
    if group is None or group.input_activations or group.weights.type != "int":
        return True
    fused = any(info.name.rpartition(".")[2] in names for names in FUSED)  # their outputs count together
    sizes = info.columns % MARLIN_INPUTS == 0 and (fused or info.rows % MARLIN_OUTPUTS == 0)
    return group.weights.num_bits not in (4, 8) or (sizes and group.weights.group_size in MARLIN_GROUPS)
