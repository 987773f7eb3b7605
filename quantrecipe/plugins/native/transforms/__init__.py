"""Function-preserving rewrites before quantization, by the recipe's name for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quantrecipe.plugins.native.stages import Transform
from quantrecipe.plugins.native.transforms.awq import Awq
from quantrecipe.plugins.native.transforms.os_plus import OutlierSuppressionPlus
from quantrecipe.plugins.native.transforms.scaling import ChannelScaling
from quantrecipe.plugins.native.transforms.smoothquant import SmoothQuant

_ALL: tuple[type[ChannelScaling], ...] = (SmoothQuant, Awq, OutlierSuppressionPlus)
BUILT_IN: dict[str, Callable[[Any], Transform]] = {
    one.name: one for one in (SmoothQuant, Awq, OutlierSuppressionPlus)
}
