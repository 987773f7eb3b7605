"""Bold and colour, on a terminal only."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

_COLOURS = {"fits": "32", "edge": "33", "does not fit": "31"}


@dataclass(frozen=True, slots=True)
class Style:
    """Wraps text in ANSI codes where ``on``."""

    on: bool = False

    def _code(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.on else text

    def bold(self, text: str) -> str:
        """Bold text."""
        return self._code("1", text)

    def red(self, text: str) -> str:
        """Red text."""
        return self._code("31", text)

    def verdict(self, verdict: str) -> str:
        """A verdict in its colour."""
        return self._code(_COLOURS[verdict], verdict)


def stdout_style() -> Style:
    """Colour where standard output is a terminal that wants it (https://no-color.org)."""
    return Style(sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")
