"""``qrun report`` and ``qrun diff``: results rendered again, and compared."""

from __future__ import annotations

import os
from pathlib import Path

import click

from quantrecipe.runner.commands.options import PATH, debug


@click.command()
@click.argument("results", type=PATH)
@click.option("-o", "--output", type=PATH, help="Markdown file; report.md beside the results if not given.")
@click.option(
    "--format", "formats", multiple=True, metavar="NAME[=FILE]",
    help="Instead of Markdown and its plot: terminal, markdown, json, junit, sarif, github or html.",
)  # fmt: skip
@debug
def report(results: Path, output: Path | None, formats: tuple[str, ...], debug: bool) -> int:
    """Render the report of a results.json again."""
    from quantrecipe.runner.baseline import read_results
    from quantrecipe.runner.report.formats import deliver, parse_formats
    from quantrecipe.runner.report.write import rerender

    if formats:
        click.echo(deliver(read_results(results), parse_formats(formats, os.environ), os.environ), nl=False)
        return 0
    click.echo(f"report: {rerender(results, output)}")
    return 0


@click.command()
@click.argument("first", type=PATH)
@click.argument("second", type=PATH)
@debug
def diff(first: Path, second: Path, debug: bool) -> int:
    """Say what changed between two results.json, and whether the change of loss is more than noise."""
    from quantrecipe.runner.baseline import read_results
    from quantrecipe.runner.diff import differences
    from quantrecipe.runner.finish import RESULTS

    found = [read_results(path / RESULTS if path.is_dir() else path) for path in (first, second)]
    for line in differences(*found):
        click.echo(line)
    return 0
