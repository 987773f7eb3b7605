"""Fills the output blocks of docs/advisor.md: each ``$ qadvise …`` is run and its output put below it.

A step of tools/generate.py. A block is a fence that opens with ```` ```console ```` and holds one command.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from click.testing import CliRunner

from quantrecipe.advisor.cli import cli

PAGE = Path(__file__).parents[1] / "docs" / "advisor.md"
_BLOCK = re.compile(r"^```console\n\$ qadvise ([^\n]*)\n.*?^```$", re.MULTILINE | re.DOTALL)


def _filled(block: re.Match[str]) -> str:
    result = CliRunner().invoke(cli, shlex.split(block[1]))
    return f"```console\n$ qadvise {block[1]}\n{result.output.rstrip()}\n```"


def filled(text: str) -> str:
    """The page with the output of every command as it is now."""
    return _BLOCK.sub(_filled, text)
