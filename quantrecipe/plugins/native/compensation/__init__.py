"""What is added to layers once they are quantized, by the recipe's name for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quantrecipe.plugins.native.compensation.lorc import Lorc
from quantrecipe.plugins.native.stages import Compensation

BUILT_IN: dict[str, Callable[[Any], Compensation]] = {Lorc.name: Lorc}
