"""The answer for a terminal of 100 columns, the recommendation first."""

from __future__ import annotations

import textwrap

from quantrecipe.advisor.advice import Advice
from quantrecipe.advisor.candidate import Candidate
from quantrecipe.advisor.constraints import UNLIMITED
from quantrecipe.advisor.evidence import in_accuracy
from quantrecipe.advisor.render.style import Style
from quantrecipe.advisor.render.table import table
from quantrecipe.memory import MemoryEstimate
from quantrecipe.rules.rule import Rule
from quantrecipe.units import format_both, format_bytes

WIDTH = 100
_SHOWN = 8
_REASONS = 6
RUIN = 10.0  # an increase of perplexity from which percents say nothing


def render_text(advice: Advice, style: Style, recipe_path: str | None = None) -> str:
    """The whole answer; ends with what to do next."""
    parts = [_head(advice, style)]
    if advice.recommended:
        parts += [_memory(advice.recommended.memory, style), _reasons(advice, style)]
    parts += [
        _warnings(advice, style),
        _offers(advice, style),
        _alternatives(advice, style),
        _frontier(advice, style),
    ]
    if advice.recommended:
        parts.append(_next(recipe_path, style))
    return "\n\n".join(part for part in parts if part) + "\n"


def wrap(text: str, first: str = "  ", rest: str = "    ") -> str:
    """Text folded to the width."""
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def budget_line(advice: Advice) -> str:
    """The question in words."""
    asked = advice.asked
    parts = [f"{asked.context:,} tokens"]
    parts += [f"batch {asked.batch}"] if asked.batch > 1 else []
    parts += [f"{asked.gpus} devices"] if asked.gpus > 1 else []
    parts += [asked.device.name] if asked.device else []
    parts += [asked.engine.name] if asked.engine else []
    parts += [f"for {asked.objective}"] if asked.objective != "quality" else []
    memory = "the least memory" if asked.memory >= UNLIMITED else _as_written(advice)
    return f"{memory}, {', '.join(parts)}"


def _as_written(advice: Advice) -> str:
    asked = advice.asked
    return f"{asked.written} = {format_both(asked.memory)}" if asked.written else format_both(asked.memory)


def share(value: float) -> str:
    """A relative increase: in percent, or as a factor where it is ruin."""
    return f"{value:+.1%}" if value < RUIN else f"x{1 + value:.3g}"


def quality_line(one: Candidate) -> str:
    """The predicted loss in words."""
    guess = one.prediction
    if guess is None:
        return "not predicted"
    rows = {0: "no published result near", 1: "1 published result near"}.get(
        guess.support, f"{guess.support} published results near"
    )
    middle, low, high = share(guess.relative_increase), share(guess.low), share(guess.high)
    return f"{middle} perplexity (80 %: {low} to {high}), {rows}"


def accuracy_line(one: Candidate) -> str:
    """The predicted loss of accuracy in words."""
    if one.prediction is None:
        return "not predicted"
    guess = in_accuracy(one.prediction)
    rest = "" if guess.support else ", no table near"
    return (
        f"{guess.relative_increase:+.1%} zero-shot accuracy above guessing (80 %: {guess.low:+.1%} to "
        f"{guess.high:+.1%}){rest}"
    )


def describe(one: Candidate) -> str:
    """The recommendation in one line."""
    order = " with act-order" if one.way.act_order else ""
    cache = f"{one.kv_bits}-bit" if one.kv_bits < 16 else "16-bit"
    return f"{one.way.scheme.name} by {one.way.method}{order}, {cache} KV cache"


def _head(advice: Advice, style: Style) -> str:
    title = f"{advice.model.id} in {budget_line(advice)}"
    one = advice.recommended
    if one is None:
        room = any(c.verdict != "does not fit" for c in advice.alternatives)
        said = "nothing that fits can be made here, served and kept within the limit" if room else "nothing fits"
        return f"{style.bold(wrap(title, '', '  '))}\n{style.red(said)}"
    verdict = style.verdict(one.verdict)
    memory = one.memory
    budget = "" if advice.asked.memory >= UNLIMITED else f" of {format_bytes(advice.asked.memory)}"
    total = f"{format_bytes(memory.total_bytes)}{budget}, up to {format_bytes(memory.uncertainty_bytes)} more"
    lines = [
        style.bold(wrap(title, "", "  ")),
        f"  {style.bold(describe(one))}: {verdict}",
        f"  memory   {total}; {memory.bits_per_weight:.2f} bits a weight",
        f"  quality  {quality_line(one)}",
        *([f"           {accuracy_line(one)}"] if one.prediction else []),
        f"  made by  the {one.backend} backend, as {one.way.format}, {format_bytes(memory.file_bytes)} on disk",
    ]
    return "\n".join(lines)


def memory_rows(memory: MemoryEstimate) -> list[tuple[str, int]]:
    """The lines of a memory estimate."""
    groups = [(f"  {name}", size) for name, size in memory.groups.items()]
    return [
        ("weights, as loaded", memory.weights_bytes), *groups, ("KV cache", memory.kv_cache_bytes),
        ("activations", memory.activations_bytes), ("context of the device", memory.overhead_bytes),
        ("total", memory.total_bytes), ("uncertainty", memory.uncertainty_bytes), ("file", memory.file_bytes),
    ]  # fmt: skip


def _memory(memory: MemoryEstimate, style: Style) -> str:
    return style.bold("Memory") + "\n" + memory_table(memory)


def memory_table(memory: MemoryEstimate) -> str:
    """The lines in decimal and binary units; a small model's in MB."""
    small = memory.total_bytes - memory.overhead_bytes < 1e9
    head, units = (("", "MB", "MiB"), (1e6, 2**20)) if small else (("", "GB", "GiB"), (1e9, 2**30))
    rows = [(name, *(f"{size / unit:,.2f}" for unit in units)) for name, size in memory_rows(memory)]
    return table(head, rows)


def _reasons(advice: Advice, style: Style) -> str:
    lines = [style.bold("Why"), *map(_reason, advice.reasons[:_REASONS])]
    more = len(advice.reasons) - _REASONS
    if more > 0:
        lines.append(f"  and {more} more: --explain")
    return "\n".join(lines) if advice.reasons else ""


def _reason(rule: Rule) -> str:
    return wrap(f"{rule.finding} [{rule.source}; {rule.id}]", f"  {rule.effect:8}", " " * 10)


def _warnings(advice: Advice, style: Style) -> str:
    if not advice.warnings:
        return ""
    return "\n".join([style.bold("Mind"), *(wrap(text, "  - ", "    ") for text in advice.warnings)])


def _offers(advice: Advice, style: Style) -> str:
    if not advice.offers:
        return ""
    lines = [f"{o.change}: {o.candidate}, {format_bytes(o.total_bytes)}" for o in advice.offers]
    return "\n".join([style.bold("What would fit"), *(wrap(line, "  - ", "    ") for line in lines)])


def _alternatives(advice: Advice, style: Style) -> str:
    if not advice.alternatives:
        return ""
    several = len({one.model.id for one in advice.alternatives}) > 1
    rows = [
        ((f"{one.model.id} " if several else "") + one.label, format_bytes(one.memory.total_bytes),
         share(one.loss) if one.prediction else "", one.rejected[0].text)
        for one in advice.alternatives[:_SHOWN]
    ]  # fmt: skip
    return (
        style.bold("Also weighed") + "\n" + table(("", "memory", "loss", "not taken because"), rows, left_last=True)
    )


def _frontier(advice: Advice, style: Style) -> str:
    several = len({one.model.id for one in advice.frontier}) > 1
    rows = [
        ((f"{one.model.id} " if several else "") + one.label, format_bytes(one.memory.total_bytes), share(one.loss))
        for one in advice.frontier
    ]
    if len(rows) < 2:
        return ""
    step = max(1, -(-len(rows) // _SHOWN))
    title = "Memory against loss (nothing is better in both)"
    return style.bold(title) + "\n" + table(("", "memory", "loss"), rows[::step])


def _next(recipe_path: str | None, style: Style) -> str:
    if recipe_path:
        return f"{style.bold('Next')}  qrun {recipe_path}"
    return f"{style.bold('Next')}  add -o recipe.yaml, then qrun recipe.yaml"
