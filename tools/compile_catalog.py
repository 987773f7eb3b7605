"""Writes the compiled catalogue and the compiled device and engine tables; ``--check`` only compares."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from quantrecipe.advisor import compile as tables
from quantrecipe.catalog import compile as catalog

TARGETS: dict[Path, Callable[[], str]] = {
    catalog.FOLDER / "compiled.json": catalog.compile_catalog,
    tables.FOLDER / "compiled_tables.json": tables.compile_tables,
}


def main() -> int:
    stale = 0
    for path, make in TARGETS.items():
        text = make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {'stale' if '--check' in sys.argv[1:] else 'written'}")
    return int(bool(stale) and "--check" in sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
