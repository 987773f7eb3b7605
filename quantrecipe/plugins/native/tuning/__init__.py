"""Methods that work on a block as a whole, by the recipe's name for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quantrecipe.plugins.native.stages import Tuning
from quantrecipe.plugins.native.tuning.zeroquant import ZeroQuant

BUILT_IN: dict[str, Callable[[Any], Tuning]] = {"zq-local": ZeroQuant, "zq-global": ZeroQuant}
