"""qadvise models: what the catalogue knows."""

from __future__ import annotations

import json

import click

from quantrecipe.advisor.render.table import table
from quantrecipe.catalog import lookup
from quantrecipe.model import ModelSpec


@click.command()
@click.argument("name", required=False)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def models(name: str | None, form: str) -> None:
    """Known models; with NAME (a model or family), its dimensions."""
    if name is None:
        found = [lookup.spec(model) for model in lookup.names()]
    else:
        one = lookup.find(name)
        found = [one] if one and name not in lookup.families() else lookup.find_family(name)
    if form == "json":
        click.echo(json.dumps({"models": [_json(model) for model in found]}, indent=2))
        return
    click.echo(table(("", "parameters", "layers", "hidden", "heads", "cache", "context"), [_row(m) for m in found]))
    if name is not None and len(found) == 1:
        click.echo(
            "\n" + table(("matrix", "N", "K", "count"), _matrices(found[0])) + f"\n\n  source: {found[0].source}"
        )


def _row(model: ModelSpec) -> tuple[str, ...]:
    return (
        model.id, f"{model.parameters:,}", str(model.layers), str(model.hidden), str(model.heads), model.kv.kind,
        f"{model.context:,}",
    )  # fmt: skip


def _matrices(model: ModelSpec) -> list[tuple[str, ...]]:
    return [(f"{m.group}: {m.name}", str(m.rows), str(m.columns), str(m.count)) for m in model.matrices]


def _json(model: ModelSpec) -> dict[str, object]:
    return {
        "id": model.id, "family": model.family, "hub_id": model.hub_id, "parameters": model.parameters,
        "groups": model.groups, "layers": model.layers, "hidden": model.hidden, "heads": model.heads,
        "attention": model.kv.kind, "vocab": model.vocab, "context": model.context, "tied": model.tied,
        "experts": model.experts, "training_tokens": model.training_tokens, "source": model.source,
    }  # fmt: skip
