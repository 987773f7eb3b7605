"""``qrun baseline accept``: keep a result as the one that later ones are to be no worse than."""

from __future__ import annotations

from pathlib import Path

import click

from quantrecipe.errors import QuantRecipeError
from quantrecipe.runner.commands.options import PATH, debug

FILE = Path("quantrecipe-baseline.json")


@click.group()
def baseline() -> None:
    """The accepted result that ``--baseline`` compares with."""


@baseline.command()
@click.argument("results", type=PATH)
@click.option("--to", type=PATH, default=FILE, show_default=True, help="The file to commit.")
@click.option("--force", is_flag=True, help="Accept also what failed or could not be judged.")
@debug
def accept(results: Path, to: Path, force: bool, debug: bool) -> int:
    """Accept a results.json, or the one in a folder; later runs are to be no worse than it."""
    from quantrecipe.modeling.writer import write_text
    from quantrecipe.runner.baseline import StoredBaseline
    from quantrecipe.runner.report.as_json import render
    from quantrecipe.runner.verdict import plain

    accepted = StoredBaseline.read(results).results
    status = accepted["verdict"]["status"]
    if status in ("fail", "unsure") and not force:
        raise QuantRecipeError(
            "the result does not pass its gates", value=status, remedy="mend it, or accept it with --force"
        )
    to.parent.mkdir(parents=True, exist_ok=True)
    write_text(to, render(accepted))
    click.echo(plain(accepted["verdict"]["sentence"]))
    click.echo(f"accepted: {to}, {len(accepted['windows']['index'])} windows; commit it")
    return 0
