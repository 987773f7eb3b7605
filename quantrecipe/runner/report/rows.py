"""Rows of the report's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from quantrecipe.runner.judge import show
from quantrecipe.runner.verdict import percent
from quantrecipe.units import format_bytes

WORST = 10


class Row(NamedTuple):
    """One measure: original, quantized, the change with its interval, and what was predicted."""

    what: str
    original: str
    quantized: str
    change: str
    predicted: str


def comparison_rows(results: Mapping[str, Any]) -> list[Row]:
    """What was measured beside what the recipe expected."""
    return [*_loss_rows(results), *_size_rows(results)]


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


def gate_rows(results: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """(gate, outcome, limit, measured with its interval, why)."""
    rows = []
    for gate in results["gates"]:
        unit = gate["unit"]
        text = show(gate["value"], unit)
        if gate["low"] is not None and gate["low"] != gate["high"]:
            text += f" ({show(gate['low'], unit)} to {show(gate['high'], unit)})"
        rows.append(
            (gate["name"], gate["outcome"], f"{show(gate['limit'], unit)} {_unit(unit)}".strip(), text, gate["why"])
        )
    return rows


def _unit(unit: str) -> str:
    return (
        "" if unit in ("bytes", "share of tokens") else "of the original" if unit == "share of the original" else unit
    )


def worst_layers(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The ten layers whose outputs (or, without inputs, weights) moved most."""
    return sorted(layers, key=error_of, reverse=True)[:WORST]


def error_of(layer: Mapping[str, Any]) -> float:
    """A layer's output error where it was seen, else its weight error."""
    seen = layer["output_error"]
    return float(layer["relative_error"] if seen is None else seen)
