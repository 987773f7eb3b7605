"""``qrun compare``: backends or recipes side by side."""

from __future__ import annotations

from pathlib import Path

import click

from quantrecipe.runner.commands.options import PATH, debug


@click.command()
@click.argument("recipe", type=PATH, nargs=-1, required=True)
@click.option("--backends", "names", metavar="A,B,…", help="Carry the one RECIPE out with each of these backends.")
@click.option("--recipes", "several", is_flag=True, help="Instead: compare two RECIPEs or more.")
@click.option("-o", "--output", type=PATH, default=Path("comparison"), show_default=True, help="Folder for it all.")
@click.option("--overwrite", is_flag=True, help="Replace checkpoints that the folder already holds.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where to compute; cuda where there is one.")
@debug
def compare(  # noqa: PLR0913, PLR0917 - one parameter an option
    recipe: tuple[Path, ...],
    names: str | None,
    several: bool,
    output: Path,
    overwrite: bool,
    device: str | None,
    debug: bool,
) -> int:
    """Carry one recipe out with several backends, or several recipes, and measure all over the same tokens."""
    from quantrecipe.errors import RecipeError
    from quantrecipe.modeling.writer import write_text
    from quantrecipe.recipe_file import load_recipe
    from quantrecipe.runner.compare import by_backend, by_recipe
    from quantrecipe.runner.compare import compare as carry_out
    from quantrecipe.runner.progress import for_terminal
    from quantrecipe.runner.report.comparison import render

    if bool(names) == several or (len(recipe) == 1) == several:
        remedy = "give one RECIPE with --backends A,B or --recipes with two or more"
        raise RecipeError("nothing to compare", remedy=remedy)
    if names:
        asked = by_backend(load_recipe(recipe[0]), [name.strip() for name in names.split(",")], output)
    else:
        asked = by_recipe(recipe, output)
    shown = for_terminal(None)
    try:
        outcomes = carry_out(asked, shown, overwrite, device)
    finally:
        shown.close()
    report = render(outcomes)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "comparison.md", report)
    click.echo(report)
    return 0 if any(one.results for one in outcomes) else 2
