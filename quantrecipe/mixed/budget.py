"""The bytes that a mix may take: of its files, or of the memory it is served in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from quantrecipe.errors import QuantRecipeError
from quantrecipe.memory import ALLOCATOR_SHARE, EDGE_SHARE, MemoryEstimate, Serving, WeightBytes, combine
from quantrecipe.mixed.options import Option
from quantrecipe.mixed.sizes import Sizes
from quantrecipe.mixed.units import Unit
from quantrecipe.model import ModelSpec
from quantrecipe.units import format_bytes

#: Units' bytes are rounded in the estimate's shares; a few bytes stay free for that.
_ROUNDING = 16


@dataclass(frozen=True, slots=True)
class Budget:
    """limit: bytes, as asked for. files: of the checkpoint's weight files; else of all memory in serving.

    written: as the user wrote the limit.
    """

    limit: int
    files: bool
    written: str

    @property
    def name(self) -> str:
        """What the limit is of."""
        return "of weight files" if self.files else "of memory"


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a model takes as its units take options. serving: with the KV cache at 16 bits."""

    sizes: Sizes
    spec: ModelSpec
    form: str
    serving: Mapping[int, Serving]
    norm_bytes: int

    def room(self, budget: Budget) -> int:
        """Bytes for the units, and for the KV cache where it counts. May be negative."""
        if budget.files:
            return budget.limit - self.sizes.rest_bytes(True)
        alone = self._estimate(16, {"norms": self.norm_bytes, "kept": self._rest()}, 0)
        share = 1 + ALLOCATOR_SHARE * EDGE_SHARE
        return int(alone.spare(budget.limit) / share) + alone.kv_cache_bytes - _ROUNDING

    def memory(self, units: tuple[Unit, ...], chosen: Mapping[str, Option], kv_bits: int) -> MemoryEstimate:
        """What serving a mix takes."""
        taken = {unit.name: self.sizes.option_bytes(unit, chosen[unit.name], False) for unit in units}
        quantized = [unit for unit in units if not chosen[unit.name].keeps]
        groups = {
            "norms": self.norm_bytes,
            "kept": self._rest() + sum(taken[unit.name] for unit in units if chosen[unit.name].keeps),
            "quantized": sum(taken[unit.name] for unit in quantized),
        }
        weights = sum(unit.weights for unit in quantized)
        stored = WeightBytes(groups, self.sizes.file_bytes(chosen), groups["quantized"], 0, weights)
        return combine(self.spec, stored, self.form, self.serving[kv_bits])

    def _rest(self) -> int:
        return self.sizes.rest_bytes(False) - self.norm_bytes

    def _estimate(self, kv_bits: int, groups: dict[str, int], file_bytes: int) -> MemoryEstimate:
        return combine(self.spec, WeightBytes(groups, file_bytes, 0, 0, 0), self.form, self.serving[kv_bits])


def below_the_least(budget: Budget, room: int, least: int) -> QuantRecipeError:
    """The error for a budget that no mix fits; it says what the smallest takes."""
    needed = budget.limit - room + least
    return QuantRecipeError(
        "no mix fits the budget", value=budget.written,
        limit=f"the smallest takes {needed} bytes ({format_bytes(needed)}) {budget.name}",
    )  # fmt: skip
