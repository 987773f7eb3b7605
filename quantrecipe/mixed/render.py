"""The answer of --measure: for a terminal, as Markdown, and as JSON."""

from __future__ import annotations

from typing import Any

from quantrecipe.advisor.render.style import Style
from quantrecipe.advisor.render.table import table
from quantrecipe.advisor.render.text import wrap
from quantrecipe.mixed.because import loss_of, more_lines, price_line, proof_line
from quantrecipe.mixed.cache import Cache
from quantrecipe.mixed.compose import Evidence
from quantrecipe.mixed.correlate import correlation_line
from quantrecipe.mixed.options import Option
from quantrecipe.mixed.question import Question
from quantrecipe.mixed.solve import Mix, bits_of, bytes_of
from quantrecipe.units import format_both, format_bytes

_HEAD = ("scheme", "layers", "weights", "bytes", "loss, nats a token")


def text(question: Question, mix: Mix, evidence: Evidence, points: list[Mix], style: Style) -> str:
    """The whole answer for a terminal of 100 columns."""
    parts = [
        _head(question, mix, evidence, style),
        style.bold("Layers") + "\n" + table(_HEAD, _scheme_rows(question, mix, evidence)),
        style.bold("Why")
        + "\n"
        + "\n".join(wrap(f"- {line}", "  ", "    ") for line in reasons(question, mix, evidence)),
    ]
    if points:
        parts.append(style.bold("Frontier") + "\n" + table(_FRONTIER, _frontier_rows(question, points)))
    return "\n\n".join(parts) + "\n"


def _head(question: Question, mix: Mix, evidence: Evidence, style: Style) -> str:
    budget, taken = question.budget, bytes_of(question, mix)
    bits, files = bits_of(question, mix), question.ledger.sizes.file_bytes(mix.chosen)
    filled = f"{taken / budget.limit:.2%} of it; {_filled(question, mix, taken)}"
    lines = [
        style.bold(f"{question.name} in {budget.written} {budget.name}"),
        f"  {'budget':12} {format_both(taken)}{_reserve(question, mix, taken)}, {filled}",
        f"  {'weights':12} {bits:.3f} bits each with their scales; {format_bytes(files)} on disk with all the rest",
        f"  {'loss':12} {mix.choice.loss:.4g} nats a token predicted from {evidence.source}",
        f"  {'price':12} {price_line(mix)}",
    ]
    if mix.cache is not None:
        lines.append(f"  {'KV cache':12} {_cache(mix.cache)}")
    return "\n".join([*lines, *(wrap(line, f"  {'measured':12} ", " " * 15) for line in evidence.verified)])


def _cache(cache: Cache) -> str:
    lost = f"; published results predict a loss of {cache.loss:.2g} nats a token, counted above" if cache.loss else ""
    return f"{cache.bits} bits, {format_bytes(cache.nbytes)}{lost}"


def _reserve(question: Question, mix: Mix, taken: int) -> str:
    """What of it is kept free for the estimate's doubt."""
    if question.budget.files:
        return ""
    total = question.ledger.memory(question.units, mix.chosen, mix.kv_bits).total_bytes
    return f" with {format_bytes(taken - total)} to spare for what is uncertain"


def _filled(question: Question, mix: Mix, taken: int) -> str:
    """Whether the budget is met, or why it is not."""
    if mix.choice.sated:
        return "more would not help"
    return "met" if taken >= 0.995 * question.budget.limit else "none of more bytes that fits loses less"


def reasons(question: Question, mix: Mix, evidence: Evidence) -> list[str]:
    """Sentences."""
    lines = [*more_lines(question, mix, evidence.losses), proof_line(question, mix)]
    said = correlation_line(evidence.correlations)
    return [*lines, said] if said else lines


def _scheme_rows(question: Question, mix: Mix, evidence: Evidence) -> list[tuple[str, ...]]:
    """One row an option: how many layers, their weights, bytes and losses; the most bits first."""
    rows: list[tuple[str, ...]] = []
    total = sum(unit.weights for unit in question.units)
    for one in sorted(set(mix.chosen.values()), key=_by_bits):
        units = [unit for unit in question.units if mix.chosen[unit.name] == one]
        size = sum(question.ledger.sizes.option_bytes(unit, one, False) for unit in units)
        loss = sum(loss_of(evidence.losses, unit, one) for unit in units)
        weights = sum(unit.weights for unit in units) / total
        count = sum(len(unit.layers) for unit in units)
        name = "as it is" if one.keeps else f"{one.scheme} {one.method}"
        rows.append((name, str(count), f"{weights:.1%}", format_bytes(size), f"{loss:.3g}"))
    return rows


def _by_bits(option: Option) -> tuple[float, ...]:
    facts = option.facts
    return (-facts.bits, facts.group or 10**9, facts.symmetric)


_FRONTIER = ("bytes", "of the budget", "bits a weight", "loss, nats a token", "price of a MB more")


def _frontier_rows(question: Question, points: list[Mix]) -> list[tuple[str, ...]]:
    """One row a point."""
    rows: list[tuple[str, ...]] = []
    for mix in points:
        taken = bytes_of(question, mix)
        price = f"{mix.choice.price * 1e6:.3g}"
        share = f"{taken / question.budget.limit:.1%}"
        rows.append((format_bytes(taken), share, f"{bits_of(question, mix):.3f}", f"{mix.choice.loss:.4g}", price))
    return rows


def markdown(question: Question, mix: Mix, evidence: Evidence, points: list[Mix]) -> str:
    """The same as Markdown."""
    head = _head(question, mix, evidence, Style()).splitlines()
    parts = [f"# {head[0]}", *(f"- {' '.join(line.split())}" for line in head[1:])]
    parts += ["", *_markdown_table(_HEAD, _scheme_rows(question, mix, evidence)), ""]
    parts += [f"- {line}" for line in reasons(question, mix, evidence)]
    if points:
        parts += ["", *_markdown_table(_FRONTIER, _frontier_rows(question, points))]
    return "\n".join(parts) + "\n"


def _markdown_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    ruler = "|".join(["---", *["--:"] * (len(head) - 1)])
    return [f"| {' | '.join(head)} |", f"|{ruler}|", *(f"| {' | '.join(row)} |" for row in rows)]


def as_json(
    question: Question, mix: Mix, evidence: Evidence, points: list[Mix], recipe: dict[str, Any]
) -> dict[str, Any]:
    """The same as one object; losses in nats a token, sizes in bytes."""
    budget = question.budget
    return {
        "model": {"id": question.name, "family": question.spec.family, "parameters": question.spec.parameters},
        "budget": {"bytes": budget.limit, "of": "files" if budget.files else "memory"},
        "mix": _mix(question, mix) | {"units": _units(question, mix, evidence)},
        "verified": list(evidence.verified),
        "correlations": [one._asdict() for one in evidence.correlations],
        "reasons": reasons(question, mix, evidence),
        "frontier": [_mix(question, one) for one in points],
        "recipe": recipe,
    }


def _mix(question: Question, mix: Mix) -> dict[str, Any]:
    choice = mix.choice
    memory = question.ledger.memory(question.units, mix.chosen, mix.kv_bits)
    return {
        "bytes": bytes_of(question, mix), "bits_per_weight": bits_of(question, mix), "kv_bits": mix.kv_bits,
        "loss": choice.loss, "bound": choice.bound, "gap": choice.gap, "loss_saved_per_mb": choice.price * 1e6,
        "more_bytes_would_help": not choice.sated, "memory": memory.to_json(),
    }  # fmt: skip


def _units(question: Question, mix: Mix, evidence: Evidence) -> list[dict[str, Any]]:
    sizes = question.ledger.sizes
    return [
        {
            "unit": unit.name, "layers": list(unit.layers), "scheme": one.scheme, "method": one.method,
            "bytes": sizes.option_bytes(unit, one, False), "loss": loss_of(evidence.losses, unit, one),
        }
        for unit in question.units
        for one in [mix.chosen[unit.name]]
    ]  # fmt: skip
