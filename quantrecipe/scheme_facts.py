"""A scheme's name as plain numbers, without pydantic, for commands that must start fast.

A name says all of it: ``w<bits>a<bits>``, ``-g<size>`` for weight groups (per channel without), ``-ag<size>``
for activation groups (per token without), ``-asym`` where the weights are asymmetric.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from quantrecipe.errors import QuantRecipeError, did_you_mean

WEIGHT_BITS = (2, 3, 4, 5, 6, 8)
_NAME = re.compile(r"w(?P<w>\d)a(?P<a>\d{1,2})(?:-g(?P<g>\d{1,5}))?(?:-ag(?P<ag>\d{1,5}))?(?P<asym>-asym)?")


class SchemeFacts(NamedTuple):
    """How the weights and inputs of a linear layer are stored.

    group: weights that share a scale; 0 is one scale a row. act_group: likewise for inputs; 0 is one a token.
    type: number type of the weights (int, float, nf4, fp4); bits is 16 where nothing is quantized.
    """

    name: str
    bits: int
    group: int = 0
    symmetric: bool = True
    type: str = "int"
    act_bits: int = 16
    act_group: int = 0
    act_type: str = "none"
    double_quantized: bool = False


_NAMED = {
    "w16a16": SchemeFacts("w16a16", 16),
    "fp8": SchemeFacts("fp8", 8, type="float", act_bits=8, act_type="float"),
    "nf4": SchemeFacts("nf4", 4, 64, type="nf4"),
    "nf4-dq": SchemeFacts("nf4-dq", 4, 64, type="nf4", double_quantized=True),
    "mxfp4": SchemeFacts("mxfp4", 4, 32, type="float"),
    "nvfp4": SchemeFacts("nvfp4", 4, 16, type="float"),
}
#: Presets worth listing; every name of the grammar works.
PRESETS = (
    "w8a16", "w6a16-g128", "w5a16-g128", "w4a16", "w4a16-g128", "w4a16-g64", "w4a16-g32", "w4a16-g128-asym",
    "w3a16", "w3a16-g128", "w3a16-g1024", "w2a16-g64", "w2a16-g64-asym", "w8a8", "w8a8-ag128", "w4a8", "w4a8-g128",
    "w4a8-g128-ag128", "fp8", "nf4", "nf4-dq", "mxfp4", "nvfp4",
)  # fmt: skip


@lru_cache(maxsize=4096)
def scheme_facts(name: str) -> SchemeFacts:
    """The facts of the scheme of that name. Raises QuantRecipeError naming the nearest."""
    key = name.strip().lower()
    if key in _NAMED:
        return _NAMED[key]
    match = _NAME.fullmatch(key)
    if not match:
        raise unknown_scheme(name)
    bits, act_bits, group, act_group = (int(match[part] or 0) for part in ("w", "a", "g", "ag"))
    legal_acts = 4 <= act_bits <= 16
    empty_group = (match["g"] and not group) or (match["ag"] and not act_group)
    if bits not in WEIGHT_BITS or not legal_acts or empty_group or (act_bits == 16 and act_group):
        raise unknown_scheme(name)
    act_type = "none" if act_bits == 16 else "int"
    return SchemeFacts(key, bits, group, not match["asym"], "int", act_bits, act_group, act_type)


def unknown_scheme(name: str) -> QuantRecipeError:
    """The error that names what is allowed and the nearest presets."""
    return QuantRecipeError(
        "unknown scheme",
        value=name,
        limit="w<2-6,8>a<4-16>[-g<group>][-ag<group>][-asym] or " + "fp8, nf4, nf4-dq, mxfp4, nvfp4",
        remedy=did_you_mean(name, PRESETS),
    )
