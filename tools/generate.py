"""Makes every generated file of the repository, and checks that none is stale: ``make docs``.

    python tools/generate.py              write what differs
    python tools/generate.py rules pages  write the files of these steps
    python tools/generate.py --check      write nothing; exit 1 and name the files that differ
    python tools/generate.py --all        the slow step too: the prediction, fitted again

A step is a name and a function that returns {path: text}; add yours to STEPS. Steps run in their order, since the
advisor's page shows what the compiled data answer.
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


def catalog() -> dict[Path, str]:
    """The catalogue of models, compiled."""
    from quantrecipe.catalog import compile as models

    return {models.FOLDER / "compiled.json": models.compile_catalog()}


def tables() -> dict[Path, str]:
    """Devices and engines, compiled."""
    from quantrecipe.advisor import compile as devices

    return {devices.FOLDER / "compiled_tables.json": devices.compile_tables()}


def schemas() -> dict[Path, str]:
    """The JSON schemas of recipes and answers."""
    from export_schemas import texts

    return texts()


def rule_docs() -> dict[Path, str]:
    """The pages of the rules, and the table of facts."""
    from rule_pages import pages

    return {ROOT / "docs" / "rules" / name: text for name, text in pages().items()}


def advisor_page() -> dict[Path, str]:
    """The outputs shown on the advisor's page."""
    from advisor_docs import PAGE, filled

    return {PAGE: filled(PAGE.read_text(encoding="utf-8"))}


STEPS: dict[str, Step] = {
    "rules": rules, "catalog": catalog, "tables": tables, "schemas": schemas, "pages": rule_docs,
    "advisor": advisor_page,
}  # fmt: skip


def stale(files: dict[Path, str]) -> list[Path]:
    """The files whose text differs from what would be written."""
    return [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]


def main(arguments: list[str]) -> int:
    """Writes or checks; returns the exit code."""
    check, everything = "--check" in arguments, "--all" in arguments
    names = [name for name in arguments if not name.startswith("--")] or list(STEPS)
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        print(f"unknown step {unknown[0]!r}; known: {', '.join(STEPS)}", file=sys.stderr)
        return 2
    if everything and _fit(check):
        return 1
    different = [path for name in names for path in _step(STEPS[name](), check)]
    for path in different:
        print(f"{'stale' if check else 'wrote'} {path.relative_to(ROOT)}")
    return 1 if check and different else 0


def _step(files: dict[Path, str], check: bool) -> list[Path]:
    different = stale(files)
    for path in [] if check else different:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[path], encoding="utf-8")
    return different


def _fit(check: bool) -> int:
    """The prediction and its page, by a process of its own: numpy's threads are set before it is imported."""
    import subprocess

    words = ["--check"] if check else ["--docs"]
    return subprocess.run([sys.executable, str(ROOT / "tools" / "fit_prediction.py"), *words], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
