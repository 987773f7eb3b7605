"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)
Command = Callable[..., Any]


def gating(command: Command) -> Command:
    """``--unsure``, ``--baseline`` and ``--format``."""
    for option in (
        click.option(
            "--format", "formats", multiple=True, metavar="NAME[=FILE]",
            help="terminal, markdown, json, junit, sarif, github, html; repeatable. If not given: what the CI reads.",
        ),
        click.option("--baseline", type=PATH, help="Accepted results.json to be no worse than, or its folder."),
        click.option(
            "--unsure", type=click.Choice(["extend", "fail", "pass"]), default="extend", show_default=True,
            help="What becomes of a gate whose interval holds the limit; extend measures more windows.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


debug = click.option("--debug", is_flag=True, help="Show tracebacks.")
