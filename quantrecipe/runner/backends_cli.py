"""``qrun backends``: who can carry recipes out here, and how to install those who cannot."""

from __future__ import annotations

from pathlib import Path

import click


@click.group(invoke_without_command=True)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--for", "recipe", type=click.Path(path_type=Path), help="Say of each whether it can carry out RECIPE.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.pass_context
def backends(ctx: click.Context, form: str, recipe: Path | None, debug: bool) -> int | None:
    """List the backends: version, whether they can run here, and what they can do."""
    from quantrecipe.runner.backends_table import as_json, as_text, judged_json, judged_text

    if ctx.invoked_subcommand is not None:
        return None
    if recipe is None:
        click.echo(as_json() if form == "json" else as_text())
        return 0
    from quantrecipe.recipe_file import load_recipe

    asked = load_recipe(recipe)
    click.echo(judged_json(asked) if form == "json" else judged_text(asked))
    return 0


@backends.command()
@click.argument("name")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def install(name: str, debug: bool) -> int:
    """Give backend NAME an environment of its own, with the versions that are known to run together."""
    from quantrecipe.errors import BackendError, did_you_mean
    from quantrecipe.plugins.isolated.environment import environments
    from quantrecipe.plugins.isolated.environment import install as make

    known = environments()
    if name not in known:
        raise BackendError(
            "no environment is known for this backend",
            value=name,
            limit=f"known: {', '.join(sorted(known))}",
            remedy=did_you_mean(name, known),
        )
    python = make(known[name], click.echo)
    click.echo(f"{name} {known[name].version()}: ready, {python}")
    return 0
