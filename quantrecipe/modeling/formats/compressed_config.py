"""compressed-tensors' quantization_config: which scheme each module has, and in which of its layouts it is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from quantrecipe.errors import ModelError
from quantrecipe.modeling.formats.settings import flag, integer, pair, word, words

PACKED = ("pack-quantized",)
PLAIN = ("int-quantized", "float-quantized", "naive-quantized")
DENSE = ("dense",)
MX, NV = "mxfp4-pack-quantized", "nvfp4-pack-quantized"
FP4 = (MX, NV)
LAYOUTS = (*PACKED, *PLAIN, *DENSE, *FP4)
Strategy = Literal["tensor", "channel", "group", "block"]


@dataclass(frozen=True, slots=True)
class WeightScheme:
    """How the weights of one group of modules are stored. block: (rows, columns) that share a scale."""

    layout: str
    bits: int
    is_float: bool
    symmetric: bool
    strategy: str
    group_size: int
    block: tuple[int, int] | None
    has_g_idx: bool
    inputs: bool
    targets: tuple[str, ...]


def schemes_of(config: Mapping[str, Any]) -> list[WeightScheme]:
    """Every group that quantizes weights. Raises ModelError."""
    groups = config.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise ModelError("the quantization config has no config_groups")
    overall = word(config, "format", "")
    found = [_scheme(group, overall) for group in groups.values() if _has_weights(group)]
    if not found:
        raise ModelError("no config group quantizes weights")
    return found


def _has_weights(group: Any) -> bool:
    if not isinstance(group, dict):
        raise ModelError("a config group is no object", value=repr(group)[:60])
    return group.get("weights") is not None


def _scheme(group: Mapping[str, Any], overall: str) -> WeightScheme:
    weights = group["weights"]
    if not isinstance(weights, dict):
        raise ModelError("the weights of a config group are no object", value=repr(weights)[:60])
    layout = word(group, "format", overall)
    if layout not in LAYOUTS:
        raise ModelError("no reader for this layout of compressed-tensors", value=layout, limit=", ".join(LAYOUTS))
    size = weights.get("group_size")
    strategy = word(weights, "strategy", "tensor" if size is None else "channel" if size == -1 else "group")
    strategy = "group" if strategy == "tensor_group" else strategy
    if strategy not in ("tensor", "channel", "group", "block"):
        raise ModelError("no reader for this strategy", value=strategy, limit="tensor, channel, group, block")
    return WeightScheme(
        layout=layout,
        bits=integer(weights, "num_bits", (2, 3, 4, 5, 6, 7, 8), 8),
        is_float=word(weights, "type", "int") == "float",
        symmetric=flag(weights, "symmetric", True),
        strategy=strategy,
        group_size=integer(weights, "group_size", range(1, 2**31)) if strategy == "group" else 0,
        block=pair(weights, "block_structure") if strategy == "block" else None,
        has_g_idx=weights.get("actorder") in ("group", True),
        inputs=group.get("input_activations") is not None,
        targets=tuple(words(group, "targets")),
    )


def matches(pattern: str, name: str) -> bool:
    """Whether a target or ignore entry names this module: its full name, or ``re:`` from the start."""
    if not pattern.startswith("re:"):
        return pattern == name
    try:
        return re.match(pattern[3:], name) is not None
    except re.error as error:
        raise ModelError("the quantization config has no regular expression", value=pattern[:80]) from error


def candidates(schemes: list[WeightScheme], module: str, kind: str = "Linear") -> list[WeightScheme]:
    """The schemes whose targets mean the module, those that name it first, then those that name its class."""
    named = [one for one in schemes if any(matches(target, module) for target in one.targets)]
    return named + [one for one in schemes if one not in named and kind in one.targets]
