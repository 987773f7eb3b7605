"""One self-contained text of a CUDA source, its own headers put in: a hash of it names what it compiles to."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

INCLUDE = re.compile(r'^\s*#include "([\w.]+)"\s*$')
GUARD = re.compile(r"^\s*#pragma once\s*$")


@lru_cache(maxsize=64)
def whole_text(path: Path) -> str:
    """The source with every ``#include "…"`` of its folder replaced by that file, each once."""
    return "\n".join(_lines(path, set())) + "\n"


def _lines(path: Path, seen: set[Path]) -> list[str]:
    seen.add(path)
    text = path.read_text().splitlines()
    lines = [f'#line 1 "{path.name}"']
    for number, line in enumerate(text, 1):
        found = INCLUDE.match(line)
        header = path.parent / found[1] if found else None
        if header is None or not header.is_file():  # emulated_ptx.cuh is the tests' and never read here
            lines.append("" if GUARD.match(line) else line)
        elif header not in seen:
            lines += [*_lines(header, seen), f'#line {number + 1} "{path.name}"']
        else:
            lines.append("")
    return lines
