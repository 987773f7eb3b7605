"""Fills the output blocks of docs/advisor.md: each ``$ qadvise …`` is run and its output put below it.

``--check`` only compares. A block is a fence that opens with ```` ```console ```` and holds one command.
"""

from __future__ import annotations

import re
import shlex
import sys
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


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    now = filled(text)
    if "--check" in sys.argv[1:]:
        return int(text != now)
    PAGE.write_text(now, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
