"""The Markdown pages of the rules, made from the packs: one page a pack, an index, and the table of facts."""

from __future__ import annotations

from collections.abc import Iterator

from quantrecipe.rules.compile import compiled_rules, read_packs
from quantrecipe.rules.fields import fields
from quantrecipe.rules.pack import SETTINGS, Pack
from quantrecipe.rules.rule import Query, Rule

HEADINGS = ("Finding", "When", "Effect", "Advice", "Source", "Evidence", "Limits")
STANDS_ON = {
    "text": "the source's own text or table",
    "digest": "a digest of the source",
    "abstract": "the abstract only",
    "derived": "arithmetic on the rows",
}
_MADE = "<!-- made by tools/generate.py; edit the pack, not this page -->\n"


def pages() -> dict[str, str]:
    """Every generated page under docs/rules/, by file name."""
    packs = read_packs()
    made = {f"{pack.pack}.md": pack_page(pack) for pack in packs}
    return {"index.md": index_page(packs), "facts.md": facts_page(), **made}


def index_page(packs: list[Pack]) -> str:
    """All packs with their rules, one line each."""
    lines = [_MADE, "# Rules", "", "One pack a source, one rule a finding. How to write your own:", ""]
    lines[-2] += " [writing rules](writing-rules.md); what a rule can see: [facts](facts.md)."
    for pack in packs:
        lines += [f"## [{pack.title}]({pack.pack}.md)", "", pack.about, "", "| rule | effect | |", "|---|---|---|"]
        lines += [f"| {_link(rule)} | {effect(rule)} | {rule.title} |" for rule in compiled_rules([pack])]
        lines.append("")
    return "\n".join(lines)


def _link(rule: Rule) -> str:
    return f"[{rule.id}]({rule.pack}.md#{rule.id.replace('/', '').replace('.', '')})"


def pack_page(pack: Pack) -> str:
    """One pack: each rule under the fixed headings."""
    lines = [_MADE, f"# {pack.title}", "", pack.about, ""]
    if pack.read:
        lines += [f"Read from: {pack.read}.", ""]
    for rule in compiled_rules([pack]):
        lines += [f"## {rule.id}", "", f"{rule.title} ({rule.status})", ""]
        for heading, body in zip(HEADINGS, _bodies(rule), strict=True):
            lines += [f"### {heading}", "", body, ""]
    return "\n".join(lines)


def _bodies(rule: Rule) -> Iterator[str]:
    """The texts under HEADINGS, in their order."""
    yield rule.finding
    yield "\n".join(f"    {line.text}" for line in rule.when) or "Always."
    yield "\n".join([effect(rule), *(f"\n    {line.text}" for line in rule.require)])
    yield rule.advice
    yield f"{rule.source}. Stands on {' and '.join(STANDS_ON[mark] for mark in rule.stands_on)}."
    rows = "\n".join(f"- {row}" for row in rule.rows)
    yield "\n\n".join([*([rows] if rows else []), *map(_query, rule.evidence)]) or "No rows among ours."
    yield rule.limits


def effect(rule: Rule) -> str:
    """The effect with its weight or value, in a few words."""
    text = f"{rule.effect} {rule.weight:+g}" if rule.effect == "prefer" else rule.effect
    settings = ", ".join(f"{name} = {str(value).lower()}" for name, value in rule.value.items())
    return f"{text}, {settings}" if settings else text


def _query(query: Query) -> str:
    where = "; ".join(f"{column} = {' or '.join(values)}" for column, values in query.where.items())
    return f"From `{query.file}`, {where}."


def facts_page() -> str:
    """Every fact a rule can name, and every setting it can recommend."""
    lines = [_MADE, "# Facts that rules can name", "", "| fact | type | |", "|---|---|---|"]
    for field in fields().values():
        kind = " \\| ".join(field.allowed) or field.kind
        lines.append(f"| `{field.name}` | {kind}{' or unknown' if field.optional else ''} | {field.doc} |")
    lines += [
        "",
        "A comparison with an unknown fact does not hold, and neither does its `not`.",
        "",
        "## Settings",
        "",
    ]
    lines += ["| setting | range |", "|---|---|"]
    lines += [f"| `{name}` | {str(low).lower()} to {str(high).lower()} |" for name, (low, high) in SETTINGS.items()]
    return "\n".join([*lines, ""])
