"""qrun: carries recipes out. Imports nothing heavy until a command needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantrecipe import __version__
from quantrecipe.errors import RecipeError, did_you_mean
from quantrecipe.runner.backends_cli import backends
from quantrecipe.runner.cli_group import RecipeGroup
from quantrecipe.runner.commands.baseline import baseline
from quantrecipe.runner.commands.compare import compare
from quantrecipe.runner.commands.gate import gate
from quantrecipe.runner.commands.generate import generate
from quantrecipe.runner.commands.kernels import kernels
from quantrecipe.runner.commands.options import gating
from quantrecipe.runner.commands.report import diff, report
from quantrecipe.runner.guard import guarded

if TYPE_CHECKING:
    from quantrecipe.recipe import Recipe

PATH = click.Path(path_type=Path)


@click.group(cls=RecipeGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="qrun")
def cli() -> None:
    """Quantize a model as a recipe says, prove that the result is sound, measure what it lost and report.

    \b
    qrun recipe.yaml               carry the recipe out
    qrun --dry-run recipe.yaml     print the plan; reads no weights
    qrun COMMAND                   one of the commands below
    """


@cli.command("run", hidden=True)
@click.argument("recipe", type=PATH)
@click.option("--model", help="Folder, 'demo' or hub id, instead of the recipe's model.")
@click.option("--output", type=PATH, help="Folder for the checkpoint, instead of the recipe's.")
@click.option("--overwrite", is_flag=True, help="Replace a checkpoint that the output already holds.")
@click.option("--dry-run", is_flag=True, help="Print the plan and stop; reads no weights.")
@click.option("--preflight-only", is_flag=True, help="Check everything that can be checked, and stop.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where to compute; cuda where there is one.")
@click.option(
    "--spill",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="Keep calibration activations in files; auto where they do not fit the memory.",
)
@click.option("--log-json", type=PATH, metavar="FILE", help="Append progress as JSON lines.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model.")
@click.option("--allow-pickle", is_flag=True, help="Read weights that are pickles; tensors alone are unpickled.")
@gating
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def run_command(recipe: Path, dry_run: bool, preflight_only: bool, **options: Any) -> int:
    """Carry a recipe out: preflight, quantize, verify, evaluate, gates, report."""
    asked = _load(recipe)
    if dry_run:
        from quantrecipe.runner.dryrun import dry_run as show

        for line in show(asked, options["model"], options["output"], options["device"]):
            click.echo(line)
        return 0
    from quantrecipe.runner.session import Choices, carry_out

    return carry_out(asked, recipe, Choices(preflight_only=preflight_only, **options))


def _load(path: Path) -> Recipe:
    """The recipe; a word that is no file may have been meant as a command."""
    from quantrecipe.recipe_file import load_recipe

    if not path.exists() and path.suffix not in (".yaml", ".yml"):
        raise RecipeError(
            "cannot read the recipe",
            value=str(path),
            limit="no such file",
            remedy=did_you_mean(str(path), [name for name in cli.commands if name != "run"]),
        )
    return load_recipe(path)


@cli.command()
@click.argument("recipes", type=PATH, nargs=-1, required=True)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def validate(recipes: tuple[Path, ...], debug: bool) -> int:
    """Check recipes' keys and values; needs no model."""
    from quantrecipe.runner.describe import describe

    faults = 0
    for recipe in recipes:
        try:
            click.echo(f"{recipe}: valid; {describe(_load(recipe))}")
        except RecipeError as error:
            if debug or len(recipes) == 1:
                raise
            click.echo(f"qrun: error: {error.line()}", err=True)
            faults += 1
    return 2 if faults else 0


@cli.command()
@click.argument("folder", type=PATH)
@click.option("--original", help="The model it was made from: then weights are compared with it.")
@click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def verify(folder: Path, original: str | None, trust_remote_code: bool, debug: bool) -> int:
    """Check any quantized checkpoint: hashes, structure, numbers, that it loads, that it is quantized.

    Exit code 0: sound; 1: damaged; 2: it cannot be judged.
    """
    from quantrecipe.runner.integrity import verify_folder

    report = verify_folder(folder, original, trust_remote_code)
    for line in report.lines():
        click.echo(line)
    return report.exit_code


cli.add_command(backends)


for _command in (gate, baseline, report, diff, compare, generate, kernels):
    cli.add_command(_command)


def main(arguments: list[str] | None = None) -> None:
    """The console command; exits 0, 1, 2 or 130 and never shows a traceback without --debug."""
    words = sys.argv[1:] if arguments is None else arguments
    sys.exit(guarded(lambda: cli.main(words, prog_name="qrun", standalone_mode=False), "--debug" in words))


if __name__ == "__main__":
    main()
