"""Rows of the report's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from quantrecipe.runner.intervals import CONFIDENCE
from quantrecipe.runner.verdict import percent, show
from quantrecipe.units import format_bytes

WORST = 10
#: Gates whose failure layers can be to blame for.
QUALITY = (
    "max_perplexity_increase", "max_baseline_increase", "max_kl", "min_top1_agreement", "min_task_accuracy",
    "max_task_drop", "within_prediction",
)  # fmt: skip


class Row(NamedTuple):
    """One measure: original, quantized, the change with its interval, and what was predicted."""

    what: str
    original: str
    quantized: str
    change: str
    predicted: str


def comparison_rows(results: Mapping[str, Any]) -> list[Row]:
    """What was measured beside what the recipe expected."""
    return [*_loss_rows(results), *_task_rows(results), *_speed_rows(results), *_size_rows(results), *_cost(results)]


def _loss_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    measures = results["measures"]
    if measures is None:
        return
    expected = (results["expected"] or {}).get("loss")
    yield Row(
        "Perplexity",
        f"{measures['perplexity']:.4g}",
        f"{measures['quantized_perplexity']:.4g}",
        interval(measures["increase"], sign=True),
        _predicted_loss(expected, measures["increase"]),
    )
    if measures["bits_per_byte"] is not None:
        first, second = measures["bits_per_byte"], measures["quantized_bits_per_byte"]
        yield Row("Bits per byte", f"{first:.4f}", f"{second:.4f}", f"{second - first:+.4f}", "")
    kl = measures["kl"]
    if kl is None:
        return
    between = "" if kl["low"] is None else f" ({kl['low']:.3g} to {kl['high']:.3g})"
    yield Row("KL to the original, nats a token", "0", f"{kl['value']:.3g}{between}", "", "")
    yield Row("Same most likely token", "100 %", interval(measures["agreement"]), "", "")


def _task_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    for name, task in results["tasks"].items():
        first, second = (f"{100 * task[key]['value']:.1f} %" for key in ("original", "quantized"))
        drop = task["drop"]
        change = f"{-100 * drop['value']:+.1f} ({-100 * drop['high']:+.1f} to {-100 * drop['low']:+.1f}) points"
        yield Row(f"{name}, {task['metric']} of {task['questions']}", first, second, change, "")


def _speed_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    speed = results["speed"]
    if speed is not None:
        first, second = speed["original"], speed["quantized"]
        yield Row("Tokens a second", f"{first:.1f}", f"{second:.1f}", f"{second / first:.2f} times", "")


def _cost(results: Mapping[str, Any]) -> Iterator[Row]:
    """What this run took; what serving is expected to take."""
    yield Row("Time of this run", "", f"{seconds(results):.1f} s", "", "")
    peaks = [stage["peak_memory"] for stage in results["stages"] if stage["peak_memory"]]
    if peaks:
        yield Row("Peak memory of this run", "", format_bytes(max(peaks)), "", "")
    serving = (results["expected"] or {}).get("peak_memory")
    if serving:
        yield Row("Memory to serve it", "", "", "", format_bytes(serving))


def interval(found: Mapping[str, Any], sign: bool = False) -> str:
    """A share with its 95 % interval."""
    text = percent(found["value"], sign)
    if found["low"] is None:
        return text
    return f"{text} ({percent(found['low'], sign)} to {percent(found['high'], sign)})"


def _predicted_loss(expected: Mapping[str, Any] | None, found: Mapping[str, Any]) -> str:
    if expected is None:
        return ""
    low, high = expected["low"], expected["high"]
    inside = "measured inside" if low <= found["value"] <= high else "measured outside"
    text = percent(expected["relative_increase"], sign=True)
    return f"{text} ({percent(low, sign=True)} to {percent(high, sign=True)}), {inside}"


def _size_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    size, expected = results["size"], results["expected"] or {}
    before, after = size["original_file_bytes"], size["file_bytes"]
    predicted = expected.get("file_bytes")
    told = ""
    if predicted:
        told = f"{format_bytes(predicted)} ({100 * (after / predicted - 1):+.1f} % measured)"
    yield Row("Weight files", format_bytes(before), format_bytes(after), f"{after / before:.3f} of it", told)
    bits = size["bits_per_weight"]
    if bits is not None:
        yield Row(
            "Bits a quantized weight, scales included", str(size["original_bits_per_weight"]), f"{bits:.3f}", "", ""
        )


class GateLine(NamedTuple):
    """A gate in words. is_quality: whether layers can be to blame."""

    name: str
    outcome: str
    limit: str
    measured: str
    why: str
    faults: tuple[str, ...]
    is_quality: bool


def seconds(results: Mapping[str, Any]) -> float:
    """Of all stages."""
    return sum(float(stage["seconds"]) for stage in results["stages"])


def gate_rows(results: Mapping[str, Any]) -> list[GateLine]:
    """A line a gate."""
    return [
        GateLine(
            gate["name"],
            gate["outcome"],
            _limit(gate),
            _measured(gate),
            gate["why"],
            tuple(gate["faults"]),
            gate["name"].partition(":")[0] in QUALITY,
        )
        for gate in results["gates"]
    ]


def _limit(gate: Mapping[str, Any]) -> str:
    unit = gate["unit"]
    least = "" if gate["low_limit"] is None else f"{show(gate['low_limit'], unit)} to "
    return f"{least}{show(gate['limit'], unit)} {_unit(unit)}".strip()


def _measured(gate: Mapping[str, Any]) -> str:
    """The value with its interval, and the interval's confidence where it is not the usual one."""
    unit, text = gate["unit"], show(gate["value"], gate["unit"])
    if gate["low"] is None or gate["low"] == gate["high"]:
        return text
    odd = gate["confidence"] is not None and abs(gate["confidence"] - CONFIDENCE) > 1e-9
    told = f"; {100 * gate['confidence']:.2f} %" if odd else ""
    return f"{text} ({show(gate['low'], unit)} to {show(gate['high'], unit)}{told})"


def _unit(unit: str) -> str:
    if unit.startswith("share of the"):
        return unit.removeprefix("share ")
    return "" if unit in ("bytes", "share of tokens", "share", "faults") else unit


def worst_layers(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The ten layers whose outputs (or, without inputs, weights) moved most."""
    return sorted(layers, key=error_of, reverse=True)[:WORST]


def error_of(layer: Mapping[str, Any]) -> float:
    """A layer's output error where it was seen, else its weight error."""
    seen = layer["output_error"]
    return float(layer["relative_error"] if seen is None else seen)
