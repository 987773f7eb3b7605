"""The outcome of a run in one sentence that a person understands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantrecipe.units import format_bytes


def status(results: Mapping[str, Any]) -> str:
    """``fail``, ``unsure``, ``pass``, or ``done`` where the recipe has no gates and the checkpoint is sound."""
    gates = results["gates"]
    outcomes = {gate["outcome"] for gate in gates}
    found = next((name for name in ("fail", "unsure", "pass") if name in outcomes), "done")
    return "done" if found == "pass" and len(limits(gates)) == 0 else found


def limits(gates: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The gates that the recipe sets: all but integrity, which always is one."""
    return [gate for gate in gates if gate["name"] != "integrity"]


def sentence(results: Mapping[str, Any]) -> str:
    """The verdict: size, loss with its interval, and what the gates say."""
    size = results["size"]
    if not size["file_bytes"]:
        return f"The checkpoint made from `{results['model']['id']}` is damaged{_gates(results)}"
    ratio = size["original_file_bytes"] / max(size["file_bytes"], 1)
    before, after = format_bytes(size["original_file_bytes"]), format_bytes(size["file_bytes"])
    smaller = f"`{results['model']['id']}` went from {before} to {after} ({ratio:.1f} times smaller)"
    return f"{smaller} and {_loss(results['measures'])}{_gates(results)}"


def _loss(measures: Mapping[str, Any] | None) -> str:
    if measures is None:
        return "what it lost was not measured"
    increase = measures["increase"]
    change = "rose" if increase["value"] >= 0 else "fell"
    text = f"its perplexity {change} by {percent(abs(increase['value']))}"
    if increase["low"] is None:
        return f"{text} (too few windows for an interval)"
    between = f"95 % interval {percent(increase['low'], sign=True)} to {percent(increase['high'], sign=True)}"
    noise = "; no loss can be told from noise" if increase["low"] <= 0 <= increase["high"] else ""
    return f"{text} ({between}{noise})"


def _gates(results: Mapping[str, Any]) -> str:
    gates = results["gates"]
    for outcome, words in (("fail", "**fails**"), ("unsure", "is **unsure**")):
        names = [f"`{gate['name']}`" for gate in gates if gate["outcome"] == outcome]
        if names:
            return f"; it {words} on {', '.join(names)}."
    count = len(limits(gates))
    if not count:
        return "; the recipe sets no gates."
    return f"; it **passes** {'its gate' if count == 1 else f'all {count} gates'}."


def percent(share: float, sign: bool = False) -> str:
    """A share as percent, with as many digits as it deserves; large ones as a factor."""
    if abs(share) >= 10:
        return f"a factor of {1 + share:.4g}" if not sign else f"{100 * share:+.3g} %"
    digits = 2 if abs(share) < 0.1 else 1
    return f"{100 * share:{'+' if sign else ''}.{digits}f} %"


def plain(text: str) -> str:
    """A sentence without Markdown's marks."""
    return text.replace("`", "").replace("**", "")


def show(value: float | None, unit: str) -> str:
    """A gate's number for people."""
    if value is None:
        return "–"
    if unit == "bytes":
        return format_bytes(value)
    if unit.startswith("share"):
        return f"{100 * value:.2f} %"
    return f"{value:.4g}"
