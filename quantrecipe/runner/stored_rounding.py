"""What a checkpoint's config says that a served model rounds as it computes: inputs of layers, keys and values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from quantrecipe.modeling.dequantized import DequantizedFolder
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.formats import quantization_config
from quantrecipe.modeling.formats.compressed_config import matches
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.native.kv_cache import cached_attention
from quantrecipe.runner.quantized import Rounded
from quantrecipe.schemes import QuantizationArgs

#: LLM.int8()'s threshold where the config names none: bitsandbytes' own.
OUTLIERS = 6.0


def stored_rounding(
    stored: DequantizedFolder, skeleton: Skeleton, note: Callable[[str], None] = lambda line: None
) -> Rounded:
    """All of it. note: takes a line for what the config claims and is not done."""
    config = quantization_config(stored.config, stored.path)
    cache = stored_cache(config, stored.stored, skeleton, note)
    return Rounded(stored_inputs(config, skeleton) | outlier_inputs(config, stored, skeleton), cache)


def stored_inputs(config: dict[str, Any], skeleton: Skeleton) -> dict[str, QuantizationArgs]:
    """How compressed-tensors' config says that the inputs of each module are rounded."""
    found: dict[str, QuantizationArgs] = {}
    for group in (config.get("config_groups") or {}).values():
        if not group.get("input_activations"):
            continue
        args = _args(group["input_activations"])
        for info in skeleton.linears():
            targets, ignored = group.get("targets", []), config.get("ignore") or []
            wanted = any(target == info.kind or matches(target, info.name) for target in targets)
            if wanted and not any(matches(target, info.name) for target in ignored):
                found[info.name] = args
    return found


def _args(stored: dict[str, Any]) -> QuantizationArgs:
    """Of what a config says, the part that tells how numbers are rounded."""
    known = {key: stored.get(key) for key in QuantizationArgs.model_fields}
    return QuantizationArgs.model_validate({key: value for key, value in known.items() if value is not None})


def stored_cache(
    config: dict[str, Any], stored: ModelFolder, skeleton: Skeleton, note: Callable[[str], None]
) -> QuantizationArgs | None:
    """How a config says that keys and values are rounded; None where that is not scored, and a line that says why."""
    scheme = config.get("kv_cache_scheme")
    if not scheme:
        return None
    try:
        args = _args(scheme)
    except (ValidationError, AttributeError, TypeError):
        note(f"{_UNSCORED}: this scheme is not known")
        return None
    wanted = [f"{block.name}.{name}" for block in skeleton.blocks for name in cached_attention(block.module)]
    scales = [] if args.dynamic else [f"{name}.{part}_scale" for name in wanted for part in ("k", "v")]
    missing = [name for name in scales if name not in stored]
    if not wanted or args.strategy not in ("tensor", "token", "group", "attn_head"):
        note(f"{_UNSCORED}: {f'strategy {args.strategy} is not known' if wanted else 'no attention takes a cache'}")
        return None
    if missing:
        note(f"{_UNSCORED}: {len(missing)} of {len(scales)} scales are missing, such as {missing[0]}")
        return None
    return args


#: How an engine serves what the report does not show.
_UNSCORED = "kv_cache_scheme is not scored, keys and values stay as computed"


def outlier_inputs(
    config: dict[str, Any], stored: DequantizedFolder, skeleton: Skeleton
) -> dict[str, QuantizationArgs]:
    """How LLM.int8() rounds the inputs of the modules that it stored."""
    threshold = config.get("llm_int8_threshold")
    args = QuantizationArgs(
        num_bits=8, strategy="token", dynamic=True,
        outlier_threshold=float(threshold) if isinstance(threshold, int | float) and threshold > 0 else OUTLIERS,
    )  # fmt: skip
    return {
        info.name: args
        for info in skeleton.linears()
        if info.kind != "Other" and f"{skeleton.stored_module(info.name)}.SCB" in stored.stored
    }
