"""Texts to calibrate and measure on: those shipped with the package, a file, or a data set of the hub."""

from __future__ import annotations

import json
from pathlib import Path

from quantrecipe.errors import QuantRecipeError, did_you_mean

SHIPPED = Path(__file__).parent.parent / "demo" / "texts"
#: What ``builtin`` means for each use; ``builtin:<name>`` asks for one by name.
DEFAULT = {"calibration": "calibration", "evaluation": "heldout"}


class TextError(QuantRecipeError):
    """A text that is missing, unreadable or too short."""


def read_text(dataset: str, use: str) -> str:
    """The text that a recipe names. use: ``calibration`` or ``evaluation``.

    dataset: ``builtin``, ``builtin:jargon``, a path (UTF-8 .txt, or .jsonl whose lines have "text"), or a hub id.
    """
    if dataset == "builtin" or dataset.startswith("builtin:"):
        return _shipped(dataset.removeprefix("builtin").removeprefix(":") or DEFAULT[use])
    path = Path(dataset).expanduser()
    if path.is_file():
        return _from_file(path)
    if path.is_dir() or path.suffix in (".txt", ".jsonl", ".json", ".md") or dataset.startswith((".", "/", "~")):
        raise TextError(f"no such {use} text", value=dataset, limit="a .txt or .jsonl file, 'builtin' or a hub id")
    return _from_hub(dataset, use)


def _shipped(name: str) -> str:
    path = SHIPPED / f"{name}.txt"
    if not path.is_file() or path.parent != SHIPPED:
        known = sorted(one.stem for one in SHIPPED.glob("*.txt"))
        raise TextError(
            "no text of that name is built in",
            value=name,
            limit=f"known: {', '.join(f'builtin:{one}' for one in known)}",
            remedy=did_you_mean(name, known),
        )
    return _from_file(path)


def _from_file(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TextError("the text is not UTF-8", value=str(path), remedy="save it as UTF-8") from error
    except OSError as error:
        raise TextError("the text cannot be read", value=str(path), limit=error.strerror) from error
    return _from_lines(text, path) if path.suffix == ".jsonl" else text


def _from_lines(text: str, path: Path) -> str:
    """The "text" of every JSON line, a blank line between."""
    parts: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            part = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TextError(f'{path}:{number}: not a JSON object with "text"', limit=str(error)[:80]) from error
        parts.append(str(part))
    return "\n\n".join(parts)


def _from_hub(dataset: str, use: str) -> str:
    try:
        import datasets  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise TextError(
            f"no such {use} text",
            value=dataset,
            limit="not a file, and data sets of the hub need the package 'datasets'",
            remedy="give a .txt or .jsonl file or 'builtin', or run: pip install datasets",
        ) from error
    split = "train" if use == "calibration" else "test"
    try:
        rows = datasets.load_dataset(dataset, split=split)
        return "\n\n".join(str(row["text"]) for row in rows)
    except Exception as error:  # the library raises errors of many kinds
        raise TextError(
            f"the {use} data set cannot be loaded", value=dataset, limit=f"{type(error).__name__}: {error}"[:160]
        ) from error
