"""``qrun generate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantrecipe.runner.commands.options import PATH, debug

if TYPE_CHECKING:
    from quantrecipe.runner.generate import Written


@click.command()
@click.argument("folder", type=PATH)
@click.option("--prompt", required=True, help="The text to go on from.")
@click.option("--max-new-tokens", type=click.IntRange(1), default=64, show_default=True)
@click.option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True, help="0: the most likely.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Of the tokens drawn.")
@click.option("--against", metavar="MODEL", help="Folder, 'demo' or hub id of another model to show beside it.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where to compute; cuda where there is one.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model.")
@debug
def generate(  # noqa: PLR0913, PLR0917 - an option each
    folder: Path, prompt: str, max_new_tokens: int, temperature: float, seed: int, against: str | None,
    device: str | None, form: str, trust_remote_code: bool, debug: bool,
) -> int:  # fmt: skip
    """Let a quantized checkpoint (or any model) write, in the memory of its codes.

    Text, tokens a second and memory; with --against the same of its original, in the same run.
    """
    from quantrecipe.runner.generate import Asked, write
    from quantrecipe.runner.locate import find
    from quantrecipe.runner.preflight import choose_device

    asked, where = Asked(prompt, max_new_tokens, temperature, seed), choose_device(device)
    folders = [find(str(folder), None)] + ([] if against is None else [find(against, None)])
    found = [write(one, asked, where, trust_remote_code) for one in folders]
    if form == "json":
        rows = [one.to_json() for one in found]
        click.echo(json.dumps({"prompt": prompt, "models": rows}, indent=2, ensure_ascii=False))
        return 0
    for one in found:
        for line in _lines(one, prompt):
            click.echo(line)
    if len(found) == 2 and found[0].rate and found[1].rate:
        click.echo(f"{found[0].rate / found[1].rate:.2f} times the tokens a second, "
                   f"{found[0].weight_bytes / found[1].weight_bytes:.2f} times the memory of weights")  # fmt: skip
    return 0


def _lines(one: Written, prompt: str) -> list[str]:
    from quantrecipe.runner.paths import path_lines, reasons

    rate = "" if one.rate is None else f", {one.rate:.1f} tokens/s written"
    resident = "" if one.resident is None else f", {one.resident / 1e6:.1f} MB resident"
    paths = [f"  {row.layers} layers {row.path}: {row.why}" for row in path_lines(one.paths)]
    paths += [f"    M = {m}: {kernel}, {why}" for kernel, m, why in reasons(one.paths)]
    cache = "" if one.cache_bytes is None else f", cache {one.cache_bytes / 1e3:.2f} kB a token ({one.cache})"
    return [
        f"== {one.model}, {one.dtype} on {one.device}",
        prompt + one.text,
        f"  prompt of {one.prompt_tokens} tokens at {one.prompt_rate:.1f} tokens/s{rate} ({one.tokens})",
        f"  weights {one.weight_bytes / 1e6:.1f} MB{resident}{cache}",
        *(paths or ["  not quantized"]),
        *(f"  {note}" for note in one.notes),
    ]
