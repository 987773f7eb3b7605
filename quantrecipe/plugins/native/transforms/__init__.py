"""Function-preserving rewrites before quantization, by the recipe's name for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quantrecipe.plugins.native.stages import Transform
from quantrecipe.plugins.native.transforms.awq import Awq
from quantrecipe.plugins.native.transforms.hadamard import Hadamard
from quantrecipe.plugins.native.transforms.os_plus import OutlierSuppressionPlus
from quantrecipe.plugins.native.transforms.rptq import Rptq
from quantrecipe.plugins.native.transforms.smoothquant import SmoothQuant

BUILT_IN: dict[str, Callable[[Any], Transform]] = {
    SmoothQuant.name: SmoothQuant,
    Awq.name: Awq,
    OutlierSuppressionPlus.name: OutlierSuppressionPlus,
    Hadamard.name: Hadamard,
    Rptq.name: Rptq,
}
