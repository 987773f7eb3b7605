"""``qadvise --measure``: from the command line to the recipe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quantrecipe.errors import OutputError, QuantRecipeError
from quantrecipe.recipe_text import recipe_yaml
from quantrecipe.runner.session import prepare_process

if TYPE_CHECKING:
    from quantrecipe.mixed.answer import Answer
    from quantrecipe.mixed.measures.losses import Effort
    from quantrecipe.mixed.solve import Mix

#: Points of ``--frontier``.
POINTS = 33


#: What qadvise answers by its rules alone.
ELSEWHERE = ("family", "or_smaller", "maximize", "max_loss", "offload", "explain", "what_if", "plot")


def run(  # noqa: PLR0913 - one parameter an option
    *, model: str | None, memory: str | None, size: str | None, effort: Effort | None, pin: Sequence[str],
    schemes: str | None, calibration: str | None, frontier: bool, output: str | None, output_format: str,
    rule_files: Sequence[str], engine: str | None, debug: bool, **others: Any,
) -> int:  # fmt: skip
    """Measures, chooses, verifies, writes the recipe and prints the answer; returns the exit code."""
    used = next((name for name in ELSEWHERE if others.pop(name)), None)
    if used:
        raise QuantRecipeError(f"--{used.replace('_', '-')} does not go with --measure")
    if model is None:
        raise QuantRecipeError("--measure needs --model", remedy="qadvise --model FOLDER --measure --size 4GB")
    prepare_process()
    from quantrecipe.mixed.answer import answer
    from quantrecipe.mixed.calibration import parse_calibration
    from quantrecipe.mixed.question import pose
    from quantrecipe.mixed.solve import check_room
    from quantrecipe.runner.progress import for_terminal

    question = pose(
        model, memory, size, pins=pin, schemes=schemes, rule_files=rule_files, engine_name=engine, **others
    )
    check_room(question)
    shown = for_terminal()
    try:
        found = answer(question, parse_calibration(calibration, question.spec), effort or "default", shown)
    except KeyboardInterrupt:
        click.echo("qadvise: interrupted; the same command goes on with what has been measured", err=True)
        raise
    finally:
        shown.close()
    points = found.frontier(POINTS) if frontier else []
    recipe = found.recipe()
    if output and recipe:
        _write(Path(output), recipe_yaml(recipe))
    click.echo(_rendered(found, points, recipe, output_format), nl=False)
    if output_format == "text":
        click.echo("\n" + _next(output, bool(recipe)))
    return 0


def _next(output: str | None, quantizes: bool) -> str:
    if not quantizes:
        return "All of it fits unquantized: there is no recipe to carry out."
    return f"wrote {output}; carry it out: qrun {output}" if output else "write the recipe with -o recipe.yaml"


def _rendered(found: Answer, points: list[Mix], recipe: dict[str, Any], output_format: str) -> str:
    from quantrecipe.advisor.render.style import stdout_style
    from quantrecipe.mixed import render

    parts = (found.question, found.mix, found.evidence, points)
    if output_format == "json":
        return json.dumps(render.as_json(*parts, recipe), indent=2, allow_nan=False) + "\n"
    if output_format == "yaml":
        return recipe_yaml(recipe)
    if output_format == "markdown":
        return render.markdown(*parts)
    return render.text(*parts, stdout_style())


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError("cannot write the recipe", value=str(path), limit=reason) from error
