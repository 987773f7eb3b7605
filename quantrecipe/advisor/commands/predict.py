"""qadvise predict: the loss to expect from one scheme and method."""

from __future__ import annotations

import json
from typing import Any

import click

from quantrecipe.advisor.evidence import predict_quality
from quantrecipe.advisor.render.style import stdout_style
from quantrecipe.advisor.render.table import table


@click.command()
@click.option("--model", "-m", required=True, help="Catalogue name, hub id, folder or config.json.")
@click.option("--scheme", "-s", required=True, help="Such as w4a16-g128.")
@click.option("--method", default="gptq", show_default=True, help="The published pipeline: rtn, gptq, awq, …")
@click.option("--kv-bits", type=click.IntRange(2, 16), default=16, show_default=True)
@click.option("--metric", default="perplexity", show_default=True, help="perplexity, accuracy, lambada or mmlu.")
@click.option("--act-order/--no-act-order", default=None, help="GPTQ's column order; unsaid: either.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def predict(  # noqa: PLR0913, PLR0917 - one parameter an option
    model: str, scheme: str, method: str, kv_bits: int, metric: str, act_order: bool | None, form: str
) -> None:
    """The loss of perplexity, or of accuracy, that published results lead one to expect."""
    guess = predict_quality(model, scheme, method, kv_bits, act_order, metric=metric)
    quality = guess.to_json()
    if form == "json":
        click.echo(json.dumps({"quality": quality}, indent=2))
        return
    style = stdout_style()
    low, high = f"{guess.low:+.2%}", f"{guess.high:+.2%}"
    what = "perplexity" if metric == "perplexity" else f"of the {metric} above guessing"
    click.echo(style.bold(f"{model}, {scheme} by {method}: {guess.relative_increase:+.2%} {what}"))
    click.echo(f"  four papers in five would print between {low} and {high}")
    click.echo(f"  support {guess.support:g}; {quality.get('note', '')}")
    if metric != "perplexity" and guess.baseline:
        click.echo(f"  published at 16 bits: {guess.baseline:g} %, the mean over such tasks")
    rows = [_row(row) for row in quality["evidence"]]
    if rows:
        click.echo("\n" + style.bold("Nearest published rows") + "\n" + table(_HEAD, rows, left_last=True))


_HEAD = ("", "scheme", "method", "metric", "16-bit", "result", "source")
_SOURCE = 32


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    group = f"-g{row['group_size']}" if row.get("group_size") else ""
    scheme = f"w{row.get('weight_bits', 16):g}a{row.get('act_bits', 16)}{group}"
    name = row.get("model") or row.get("family", "")
    where = " ".join(str(row.get("source", "")).split())
    short = where if len(where) <= _SOURCE else where[: _SOURCE - 1] + "…"
    return (
        str(name), scheme, str(row.get("method")), str(row.get("metric")), f"{row.get('baseline', '')}",
        f"{row.get('value', '')}", f"{short} {row.get('table', '')}",
    )  # fmt: skip
