"""The main command: one question, one answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from quantrecipe.advisor.advice import Advice
from quantrecipe.advisor.advise import advise_one, ruleset
from quantrecipe.advisor.constraints import Constraints, constraints
from quantrecipe.catalog.resolve import resolve_model
from quantrecipe.errors import OutputError, QuantRecipeError
from quantrecipe.rules.engine import RuleSet


def run(  # noqa: PLR0913 - one parameter an option
    *, model: str | None, family: str | None, or_smaller: bool, maximize: str | None, rule_files: tuple[str, ...],
    output_format: str, output: str | None, explain: bool, what_if: bool, plot: str | None, debug: bool,
    memory: str | None, engine: str | None, **asked: Any,
) -> int:  # fmt: skip
    """Answers and prints; returns the exit code."""
    if bool(model) == bool(family):
        raise QuantRecipeError("name one of --model and --family", remedy="qadvise --model bloom-7b1 --mem 10GB")
    given = constraints(memory, engine_name=engine, **asked)
    rules = ruleset(rule_files)
    advice = _answer((model, family, or_smaller, maximize), given, rules)
    if output and advice.recommended:
        write_recipe(advice, Path(output))
    if plot:
        from quantrecipe.advisor.render.plot import draw

        draw(advice, Path(plot))
    click.echo(render(advice, output_format, output), nl=False)
    for part in _extras(advice, explain, what_if, rules):
        click.echo("\n" + part, nl=False)
    return advice.exit_code


def _answer(which: tuple[str | None, str | None, bool, str | None], given: Constraints, rules: RuleSet) -> Advice:
    """Answers for a model, a family, a model or smaller, or the most that fits."""
    model, family, or_smaller, maximize = which
    if family or or_smaller:
        from quantrecipe.advisor.family import advise_family, members

        return advise_family(members(family, model), given, rules)
    spec = resolve_model(model or "")
    if maximize:
        from quantrecipe.advisor.maximize import advise_most

        return advise_most(spec, given, rules, maximize)
    return advise_one(spec, given, rules)


def render(advice: Advice, output_format: str, recipe_path: str | None) -> str:
    """The answer in one of the formats."""
    if output_format == "json":
        import json

        return json.dumps(advice.to_json(), indent=2, allow_nan=False) + "\n"
    if output_format == "yaml":
        from quantrecipe.recipe_text import recipe_yaml

        return recipe_yaml(advice.recipe_data) if advice.recipe_data else ""
    if output_format == "markdown":
        from quantrecipe.advisor.render.markdown import render_markdown

        return render_markdown(advice)
    from quantrecipe.advisor.render.style import stdout_style
    from quantrecipe.advisor.render.text import render_text

    return render_text(advice, stdout_style(), recipe_path)


def write_recipe(advice: Advice, path: Path) -> None:
    """The recipe as YAML. Raises OutputError where the file cannot be written."""
    from quantrecipe.recipe_text import recipe_yaml

    try:
        path.write_text(recipe_yaml(advice.recipe_data or {}), encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError("cannot write the recipe", value=str(path), limit=reason) from error


def _extras(advice: Advice, explain: bool, what_if: bool, rules: RuleSet) -> list[str]:
    parts = []
    if explain and advice.recommended:
        from quantrecipe.advisor.render.explain import explain_text

        parts.append(explain_text(advice, rules))
    if what_if:
        from quantrecipe.advisor.render.what_if import what_if_text

        parts.append(what_if_text(advice.model, advice.asked))
    return parts
