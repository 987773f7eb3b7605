"""How many calibration tokens the experts saw, in a line for the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import median

from quantrecipe.modeling.experts import experts_of
from quantrecipe.plugins.contract import LayerRecord


def expert_notes(records: Iterable[LayerRecord]) -> Iterator[str]:
    """The fewest, the median and the most tokens an expert, and who saw none; nothing without calibrated experts."""
    seen: dict[str, int] = {}
    few: set[str] = set()
    for record in records:
        if record.tokens is not None and experts_of(f"{record.name}.weight") is not None:
            name = record.name.rpartition(".")[0]
            seen.setdefault(name, record.tokens)
            few |= {name} if record.tokens < record.columns else set()
    if not seen:
        return
    counts = sorted(seen.values())
    yield (
        f"calibration tokens an expert: {counts[0]:,} to {counts[-1]:,}, median {median(counts):,.0f}, "
        f"over {len(counts)} experts"
    )
    if few:
        yield (
            f"experts that saw fewer calibration tokens than a matrix of theirs has inputs: {len(few)}; "
            "more samples, or calibration.experts: all, quantize them better"
        )
    empty = [name for name, tokens in seen.items() if not tokens]
    if empty:
        yield f"experts that saw no calibration token and were rounded to nearest: {len(empty)}, such as {empty[0]}"
