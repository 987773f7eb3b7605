"""The report of ``qrun compare``: one row a contestant, differences paired window by window with the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quantrecipe.runner.compare import Outcome
from quantrecipe.runner.diff import paired
from quantrecipe.runner.pipeline import OWN_PROCESS
from quantrecipe.runner.report.rows import interval
from quantrecipe.runner.stats.evidence import relative_increase
from quantrecipe.units import format_bytes

COLUMNS = (
    "", "written as", "perplexity", "against the original (95 %)", "against the first, paired (95 %)", "KL",
    "same top token", "files", "bits a weight", "quantize, s", "peak memory", "read back by",
)  # fmt: skip


def render(outcomes: Sequence[Outcome]) -> str:
    """Markdown."""
    return "\n".join([*_head(outcomes), *_table(outcomes), *_failures(outcomes), *_notes()]) + "\n"


def _head(outcomes: Sequence[Outcome]) -> Iterator[str]:
    done = [one.results for one in outcomes if one.results]
    yield "# Comparison"
    yield ""
    if not done or done[0]["measures"] is None:
        return
    how, model = done[0]["measures"]["convention"], done[0]["model"]
    yield (
        f"`{model['id']}` ({model['architecture']}, {model['parameters']:,} parameters, {model['dtype']}): "
        f"perplexity {done[0]['measures']['perplexity']:.2f} over {how['windows']} windows of {how['window']} tokens "
        f"of `{how['dataset']}`, the same for all; {done[0]['environment']['device_name']}, "
        f"{done[0]['environment']['threads']} threads."
    )
    yield ""


def _table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|"
    first = next((one.results for one in outcomes if one.results), None)
    for one in outcomes:
        if one.results and first:
            yield f"| {' | '.join(_row(one.name, one.results, first))} |"


def _row(name: str, found: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    measures, size = found["measures"], found["size"]
    losses = ["", "", "", "", ""]
    if measures is not None:
        kl, agreement = measures["kl"], measures["agreement"]
        losses = [
            f"{measures['quantized_perplexity']:.2f}",
            interval(measures["increase"], sign=True),
            _against(first, found),
            "" if kl is None else f"{kl['value']:.4f}",
            "" if agreement is None else f"{100 * agreement['value']:.1f} %",
        ]
    seconds, peak = _cost(found["stages"])
    bits = size["bits_per_weight"]
    return [
        name,
        found["output"]["format"],
        *losses,
        format_bytes(size["file_bytes"]),
        "" if bits is None else f"{bits:.3f}",
        f"{seconds:.1f}",
        "" if peak is None else format_bytes(peak),
        found["verified"]["loader"],
    ]


def _against(first: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    if found is first:
        return "–"
    change = paired(first, found)
    return "" if change is None else interval(relative_increase(change).interval().to_json(), sign=True)


def _cost(stages: Sequence[Mapping[str, Any]]) -> tuple[float, int | None]:
    """Seconds and peak memory of quantizing: of the backend's own process where it has one."""
    by_name = {stage["name"]: stage for stage in stages}
    stage = by_name.get(OWN_PROCESS) or by_name["quantize"]
    return float(stage["seconds"]), stage["peak_memory"]


def _failures(outcomes: Sequence[Outcome]) -> Iterator[str]:
    failed = [one for one in outcomes if one.failure]
    if failed:
        yield ""
        yield from (f"* **{one.name}** could not carry it out: {one.failure}" for one in failed)


def _notes() -> Iterator[str]:
    yield ""
    yield (
        "Seconds and peak memory are those of quantizing: the native backend's stage, and for a backend in a process "
        "of its own from that process's start to the saved checkpoint, imports and loading among it."
    )
