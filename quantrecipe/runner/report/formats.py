"""The formats by name, and which ones a CI wants; a new one is a module with ``render`` and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrecipe.errors import QuantRecipeError, did_you_mean
from quantrecipe.modeling.writer import write_text
from quantrecipe.runner.report import as_json, github, html_page, junit, markdown, sarif, terminal

RENDERERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "terminal": terminal.render,
    "markdown": markdown.render,
    "json": as_json.render,
    "junit": junit.render,
    "sarif": sarif.render,
    "github": github.render,
    "html": html_page.render,
}
JUNIT_FILE = "quantrecipe-junit.xml"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A format, and the file that it goes to; None = standard output."""

    name: str
    file: Path | None = None


def parse_formats(words: tuple[str, ...], environment: Mapping[str, str]) -> list[Wanted]:
    """``junit=out.xml`` or ``terminal`` for each; where none is given, what the CI that this runs in reads."""
    return [_parse(word) for word in words] if words else detected(environment)


def detected(environment: Mapping[str, str]) -> list[Wanted]:
    """GitHub Actions: annotations and a step summary. GitLab and Jenkins: JUnit XML beside the terminal's."""
    if environment.get("GITHUB_ACTIONS") == "true":
        summary = environment.get("GITHUB_STEP_SUMMARY")
        return [Wanted("github"), *([Wanted("markdown", Path(summary))] if summary else [])]
    if environment.get("GITLAB_CI") == "true" or environment.get("JENKINS_URL"):
        return [Wanted("terminal"), Wanted("junit", Path(JUNIT_FILE))]
    return [Wanted("terminal")]


def _parse(word: str) -> Wanted:
    name, separator, file = word.partition("=")
    if name not in RENDERERS:
        known = ", ".join(RENDERERS)
        raise QuantRecipeError(
            "no such format", value=name, limit=f"known: {known}", remedy=did_you_mean(name, RENDERERS)
        )
    if separator and not file:
        raise QuantRecipeError("a format without its file", value=word, remedy=f"write {name} or {name}=FILE")
    return Wanted(name, Path(file) if file else None)


def deliver(results: Mapping[str, Any], wanted: list[Wanted], environment: Mapping[str, str]) -> str:
    """Write what goes to files; returns what goes to standard output. GitHub's step summary is added to."""
    printed = []
    for one in wanted:
        text = RENDERERS[one.name](results)
        if one.file is None:
            printed.append(text)
        elif str(one.file) == environment.get("GITHUB_STEP_SUMMARY"):
            with one.file.open("a", encoding="utf-8") as file:
                file.write(text)
        else:
            one.file.parent.mkdir(parents=True, exist_ok=True)
            write_text(one.file, text)
    return "".join(printed)
