"""A click group that takes a recipe where a command would stand: ``qrun recipe.yaml`` is ``qrun run recipe.yaml``."""

from __future__ import annotations

import click

DEFAULT = "run"


class RecipeGroup(click.Group):
    """Its default command is ``run``, whose options its help lists."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``run`` before arguments that begin with no command."""
        own = {"-h", "--help", "--version"}
        if args and args[0] not in self.commands and args[0] not in own:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Both ways to call it."""
        formatter.write_usage("qrun", "[OPTIONS] RECIPE | COMMAND [ARGS]...")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of ``run``, then the commands."""
        run = self.commands[DEFAULT]
        rows = [record for parameter in run.get_params(ctx) if (record := parameter.get_help_record(ctx))]
        version = [record for parameter in self.params if (record := parameter.get_help_record(ctx))]
        with formatter.section("Options"):
            formatter.write_dl([*(row for row in rows if "--help" not in row[0]), *version])
        self.format_commands(ctx, formatter)
