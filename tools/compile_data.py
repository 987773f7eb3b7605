"""Makes the generated files of the repository, and checks that none is stale.

    python tools/compile_data.py            write every file
    python tools/compile_data.py docs       write the files of one step
    python tools/compile_data.py --check    write nothing; exit 1 and name the files that differ

A step is a name and a function that returns {path: text}; add yours to STEPS.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

Step = Callable[[], dict[Path, str]]


def rules() -> dict[Path, str]:
    """The rule packs, parsed: what the advisor loads."""
    from quantrecipe.rules.compile import compile_packs, read_packs
    from quantrecipe.rules.loader import COMPILED

    return {COMPILED: compile_packs(read_packs())}


def docs() -> dict[Path, str]:
    """The pages of the rules, and the table of facts."""
    from rule_pages import pages

    return {ROOT / "docs" / "rules" / name: text for name, text in pages().items()}


STEPS: dict[str, Step] = {"rules": rules, "docs": docs}


def stale(files: dict[Path, str]) -> list[Path]:
    """The files whose text differs from what would be written."""
    return [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def main(arguments: list[str]) -> int:
    """Writes or checks; returns the exit code."""
    check = "--check" in arguments
    names = [name for name in arguments if name != "--check"] or list(STEPS)
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        print(f"unknown step {unknown[0]!r}; known: {', '.join(STEPS)}", file=sys.stderr)
        return 2
    different = []
    for name in names:
        files = STEPS[name]()
        different += stale(files)
        if not check:
            _write({path: files[path] for path in stale(files)})
    for path in different:
        print(f"{'stale' if check else 'wrote'} {path.relative_to(ROOT)}")
    return 1 if check and different else 0


def _write(files: dict[Path, str]) -> None:
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
