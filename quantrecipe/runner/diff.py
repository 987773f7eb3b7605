"""Two results.json compared: what changed, and whether a change of loss is more than noise."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any

from quantrecipe.runner.intervals import CONFIDENCE
from quantrecipe.runner.report.rows import interval
from quantrecipe.runner.stats.evidence import relative_increase
from quantrecipe.runner.stats.mean import Mean
from quantrecipe.runner.stats.spending import ALPHA
from quantrecipe.runner.suspects import suspects
from quantrecipe.runner.verdict import percent
from quantrecipe.units import format_bytes


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a terminal, from the first results to the second."""
    yield f"from  {_label(first)}"
    yield f"to    {_label(second)}"
    yield _loss(first, second)
    yield from _kl(first, second)
    yield from _sizes(first["size"], second["size"])
    yield from _gates(first["gates"], second["gates"])
    yield from _layers(first["layers"], second["layers"])
    yield from _libraries(first, second)
    yield from _recipes(first["recipe"], second["recipe"])


def paired(first: Mapping[str, Any], second: Mapping[str, Any], key: str = "quantized") -> Mean | None:
    """Second minus first over the windows that both measured, in the order of the text; None below two."""
    if first["windows"] is None or second["windows"] is None:
        return None
    rows, others = first["windows"], second["windows"]
    if rows[key] is None or others[key] is None:
        return None
    known = dict(zip(rows["tokens_sha256"], rows[key], strict=True))
    pairs = zip(others["tokens_sha256"], others[key], strict=True)
    found = [value - known[digest] for digest, value in pairs if digest in known]
    return Mean(found) if len(found) >= 2 else None


def _label(results: Mapping[str, Any]) -> str:
    model, output = results["model"]["id"], results["output"]
    return f"{model} as {output['format']} ({output['name']}), {results['created']}: {results['verdict']['status']}"


def _loss(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    found = paired(first, second)
    if found is None:
        return "loss: not measured over the same windows, so no comparison holds"
    change = relative_increase(found)
    significant = min(found.p_over(0.0), found.p_under(0.0)) <= ALPHA and math.isfinite(found.value)
    if found.value == 0 and significant:
        return f"loss: the same over {len(found.values)} windows"
    word = "significant" if significant else "within noise"
    shown = interval(change.interval().to_json(), sign=True)
    return f"loss: perplexity {shown} over {len(found.values)} common windows; {word} at {CONFIDENCE:.0%}"


def _kl(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    found = paired(first, second, "kl")
    if found is None or found.value == 0:
        return
    seen = found.interval()
    noise = "significant" if min(found.p_over(0.0), found.p_under(0.0)) <= ALPHA else "within noise"
    between = "" if seen.low is None else f" ({seen.low:+.3g} to {seen.high:+.3g})"
    yield f"KL to the original: {seen.value:+.3g}{between} nats a token; {noise}"


def _sizes(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    before, after = first["file_bytes"], second["file_bytes"]
    if before != after:
        change = f" ({percent(after / before - 1, sign=True)})" if before else ""
        yield f"size: {format_bytes(before)} became {format_bytes(after)}{change}"
    if first["bits_per_weight"] != second["bits_per_weight"]:
        yield f"bits a weight: {first['bits_per_weight']} became {second['bits_per_weight']}"


def _gates(first: list[Mapping[str, Any]], second: list[Mapping[str, Any]]) -> Iterator[str]:
    before = {gate["name"]: gate["outcome"] for gate in first}
    after = {gate["name"]: gate["outcome"] for gate in second}
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield f"gate {name}: {before.get(name, 'not set')} became {after.get(name, 'not set')}"


def _layers(first: list[Mapping[str, Any]], second: list[Mapping[str, Any]]) -> Iterator[str]:
    yield from (f"layer {one['name']}: {one['why']}" for one in suspects(second, first))
    better = suspects(first, second)
    if better:
        yield f"{len(better)}{' or more' if len(better) == 10 else ''} layers have a smaller weight error than before"


def _libraries(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    before, after = first["environment"]["libraries"], second["environment"]["libraries"]
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield f"library {name}: {before.get(name, 'none')} became {after.get(name, 'none')}"


def _recipes(first: str, second: str) -> Iterator[str]:
    lines = list(difflib.unified_diff(first.splitlines(), second.splitlines(), "recipe", "recipe", lineterm="", n=1))
    if lines:
        yield "recipe:"
        yield from (f"  {line}" for line in lines[2:])
