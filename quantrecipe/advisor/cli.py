"""qadvise: which quantization of a model fits a memory budget, and why."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from quantrecipe import __version__
from quantrecipe.advisor.options import FORMATS, MEASURING, measuring, question
from quantrecipe.errors import QuantRecipeError

_LAZY = {  # subcommand -> where it is; imported only when it is called
    "memory": "quantrecipe.advisor.commands.memory:memory",
    "predict": "quantrecipe.advisor.commands.predict:predict",
    "models": "quantrecipe.advisor.commands.models:models",
    "hardware": "quantrecipe.advisor.commands.hardware:hardware",
    "rules": "quantrecipe.rules.cli:rules",
}


class _Group(click.Group):
    """Subcommands that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every subcommand's name."""
        return list(_LAZY)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand of that name."""
        if cmd_name not in _LAZY:
            return None
        module, _, name = _LAZY[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@question
@click.option("--model", "-m", help="Catalogue name, hub id, folder or config.json.")
@click.option("--family", help="The best member of this family instead of one model.")
@click.option("--or-smaller", is_flag=True, help="Also weigh the smaller members of the model's family.")
@click.option("--maximize", type=click.Choice(["context", "batch"]), help="The most that fits, instead of the best.")
@click.option("--rules", "rule_files", multiple=True, help="A rule pack (YAML) of your own; may be repeated.")
@click.option("--format", "output_format", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--output", "-o", help="Write the recipe to this file.")
@click.option("--explain", is_flag=True, help="Show every rule, line by line.")
@click.option("--what-if", is_flag=True, help="A table of memory by context and scheme.")
@click.option("--plot", help="Draw memory against predicted loss to this file (PNG or SVG).")
@measuring
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="qadvise")
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:
    """Which quantization of this model fits this memory, and why.

    \b
    qadvise --model bloom-176b --mem 80GB -o recipe.yaml
    qadvise --family bloom --mem 16GB
    qadvise --model FOLDER --measure --size 4GB -o recipe.yaml
    """
    if ctx.invoked_subcommand is not None:
        return
    measuring = {name: options.pop(name) for name in MEASURING}
    if measuring.pop("measure"):
        ctx.exit(import_module("quantrecipe.mixed.command").run(**measuring, **options))
    used = next((name for name, value in measuring.items() if value), None)
    if used:
        raise QuantRecipeError(f"--{used} goes with --measure")
    from quantrecipe.advisor.commands.advise import run

    ctx.exit(run(**options))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; leaves with its exit code: 0, 1 nothing fits, 2 wrong input, 130 interrupted."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_guarded(args))


def _guarded(args: list[str]) -> int:
    """Runs the command; whatever goes wrong is one line, save with --debug."""
    try:
        result = cli.main(args=args, prog_name="qadvise", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as error:
        return _say(error.format_message(), 2)
    except QuantRecipeError as error:
        if "--debug" in args:
            raise
        return _say(error.line(), error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        if "--debug" in args:
            raise
        return _say(f"internal error: {type(error).__name__}: {error}; run again with --debug", 2)


def _say(line: str, code: int) -> int:
    click.echo("qadvise: " + " ".join(line.split()), err=True)
    return code


if __name__ == "__main__":
    main()
