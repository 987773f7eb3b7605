"""``qadvise rules``: lists the rules, shows one, checks a pack."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from textwrap import wrap

import click

from quantrecipe.rules.loader import builtin_packs, load_rules
from quantrecipe.rules.rule import Rule

WIDTH = 100
_PACKS = click.option(
    "--rules", "files", multiple=True, metavar="FILE", help="A rule pack of your own; overrides rules by id."
)


@click.group(name="rules", invoke_without_command=True)
@_PACKS
@click.pass_context
def rules(context: click.Context, files: tuple[str, ...]) -> None:
    """List the rules that the advisor goes by, grouped by their source."""
    if context.invoked_subcommand is None:
        for line in listing(files):
            click.echo(line)


@rules.command()
@click.argument("ident", metavar="ID")
@_PACKS
def show(ident: str, files: tuple[str, ...]) -> None:
    """Explain one rule: finding, conditions, effect, advice, source, evidence, limits."""
    rule = load_rules(files, _plugin_packs()).get(ident)
    for line in description(rule):
        click.echo(line)


@rules.command()
@click.argument("file")
@click.pass_context
def check(context: click.Context, file: str) -> None:
    """Check a rule pack: one line a fault, exit code 2 if there is any."""
    from quantrecipe.rules.checking import check_pack  # pydantic and yaml: only for packs that are not ours

    found = check_pack(file)
    if isinstance(found, list):
        for line in found:
            click.echo(line, err=True)
        context.exit(2)
    count = len(found.rules)
    click.echo(f"{file}: {count} rule{'s' if count != 1 else ''}, no faults")


def listing(files: Iterable[str] = ()) -> Iterator[str]:
    """The table of all rules, a block a pack; what was overridden comes last."""
    ruleset = load_rules(files, _plugin_packs())
    for (origin, pack), group in groupby(ruleset.rules, key=lambda rule: (rule.origin, rule.pack)):
        yield from _block(_head(origin, pack), list(group))
    yield f"{len(ruleset.rules)} rules; qadvise rules show ID explains one"
    for id_, before, after in ruleset.replaced:
        yield f"{id_}: {after} overrides {before}"


def _plugin_packs() -> list[str]:
    from quantrecipe.plugins.manager import rule_packs  # late: scanning entry points takes time

    return [str(path) for path in rule_packs()]


def _head(origin: str, pack: str) -> str:
    known = builtin_packs().get(pack)
    return known["title"] if origin == "quantrecipe" and known else origin


def _block(head: str, rules: list[Rule]) -> Iterator[str]:
    yield head
    width = max(len(rule.id) for rule in rules)
    for rule in rules:
        status = "" if rule.status == "stable" else f" [{rule.status}]"
        first = f"  {rule.id:{width}}  {_effect(rule):11}  "
        yield from wrap(rule.title + status, WIDTH, initial_indent=first, subsequent_indent=" " * len(first))
    yield ""


def _effect(rule: Rule) -> str:
    return f"prefer {rule.weight:+g}" if rule.effect == "prefer" else rule.effect


def description(rule: Rule) -> Iterator[str]:
    """One rule in full, wrapped to the terminal's width."""
    yield from wrap(f"{rule.id}: {rule.title}", WIDTH, subsequent_indent=" " * 12)
    settings = ", ".join(f"{name} = {str(value).lower()}" for name, value in rule.value.items())
    status = f"{rule.status}, from {rule.origin}"
    yield from _part("effect", [", ".join(part for part in (_effect(rule), settings, status) if part)])
    yield from _part("when", [line.text for line in rule.when] or ["always"])
    yield from _part("require", [line.text for line in rule.require])
    yield from _part("finding", [rule.finding])
    yield from _part("advice", [rule.advice])
    yield from _part("source", [f"{rule.source} (stands on: {', '.join(rule.stands_on)})"])
    yield from _part("evidence", list(rule.rows))
    yield from _part("limits", [rule.limits])


def _part(head: str, texts: list[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        first = f"  {head if number == 0 else '':9} "
        yield from wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * 12)
