"""``qrun gate``: judge an existing checkpoint."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from quantrecipe.runner.commands.options import PATH, debug, gating

REPORTS = Path("quantrecipe-gate")


@click.command()
@click.argument("folder", type=PATH)
@click.option("--recipe", type=PATH, required=True, help="Whose model, evaluation and gates it is judged by.")
@click.option("--model", help="The original: folder, 'demo' or hub id, instead of the recipe's.")
@click.option("-o", "--output", type=PATH, default=REPORTS, show_default=True, help="Folder for results and report.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where to compute; cuda where there is one.")
@click.option("--log-json", type=PATH, metavar="FILE", help="Append progress as JSON lines.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model.")
@gating
@debug
def gate(folder: Path, recipe: Path, output: Path, **options: Any) -> int:
    """Judge an existing checkpoint of any known format by a recipe's gates, without quantizing again."""
    from quantrecipe.runner.report.formats import deliver, parse_formats
    from quantrecipe.runner.report.write import REPORT, write_beside

    wanted = parse_formats(options["formats"], os.environ)
    judged = _judge(folder, recipe, options)
    write_beside(judged.results, output)
    click.echo(deliver(judged.results, wanted, os.environ), nl=False)
    click.echo(f"report: {output / REPORT}")
    return int(judged.exit_code)


def _judge(folder: Path, recipe: Path, options: dict[str, Any]) -> Any:
    from quantrecipe.recipe_file import load_recipe
    from quantrecipe.runner.progress import for_terminal
    from quantrecipe.runner.session import prepare_process

    prepare_process()
    shown = for_terminal(options["log_json"])
    try:
        shown.start("loading libraries")
        from quantrecipe.runner.baseline import StoredBaseline
        from quantrecipe.runner.gate import Request, gate
        from quantrecipe.runner.pipeline import override
        from quantrecipe.runner.recipe_source import recipe_source

        accepted = None if options["baseline"] is None else StoredBaseline.read(options["baseline"])
        request = Request(
            folder,
            override(load_recipe(recipe), options["model"], None),
            options["unsure"],
            accepted,
            options["device"],
            options["trust_remote_code"],
            recipe_source(recipe),
            shlex.join(["qrun", *sys.argv[1:]]),
        )
        return gate(request, shown)
    finally:
        shown.close()
