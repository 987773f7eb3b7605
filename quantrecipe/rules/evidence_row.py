"""One published number, typed. The compact table that ships beside the model gives these back."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

# Mixed precisions: the average says more than the nominal width.
EFFECTIVE_BIT_METHODS = frozenset({"gguf", "gguf-legacy", "gguf-imatrix", "spqr"})


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """A row of a paper's table. ``value`` and ``baseline`` (16-bit, same source) are in the metric's unit.

    ``params_b``: billions. ``effective_bits``: scales and zero points included where printed or computable.
    ``symmetric``, ``act_order``: None = not stated. ``group_size``: None = one scale a row.
    ``act_scope``: "tensor" | "token" | "". ``weight_type``, ``act_type``: "int" | "float".
    """

    source: str
    table: str
    family: str
    model: str
    params_b: float
    weight_bits: float
    effective_bits: float
    symmetric: bool | None
    act_bits: int
    kv_bits: int
    method: str
    group_size: int | None
    metric: str
    value: float
    baseline: float | None
    note: str = ""
    act_order: bool | None = None
    act_scope: str = ""
    weight_type: str = "int"
    act_type: str = "int"

    @property
    def bits(self) -> float:
        """The bits that the model regresses on: nominal, or the average for mixed-precision formats."""
        return self.effective_bits if self.method in EFFECTIVE_BIT_METHODS else self.weight_bits

    @property
    def is_perplexity(self) -> bool:
        """A perplexity, or a printed ratio of two, with its 16-bit baseline beside it."""
        return self.metric.startswith("ppl_") and self.baseline is not None

    @property
    def loss(self) -> float | None:
        """log(value / baseline) in nats; None where the row is no perplexity with a baseline."""
        if not self.is_perplexity or self.baseline is None or self.value <= 0 or self.baseline <= 0:
            return None
        return math.log(self.value / self.baseline)

    @property
    def suspect(self) -> bool:
        """Likely a misprint of the source: kept, shown, never fitted."""
        return "SUSPECT" in self.note

    def to_json(self) -> dict[str, Any]:
        """The row as DESIGN.md's quality.evidence lists it; empty fields left out."""
        return {key: value for key, value in asdict(self).items() if value not in ("", None)}
