"""``qrun compare``: one recipe through several backends, or several recipes, over the same tokens, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrecipe.errors import QuantRecipeError, RecipeError
from quantrecipe.plugins.contract import Progress
from quantrecipe.plugins.manager import backend
from quantrecipe.recipe import Recipe
from quantrecipe.recipe_file import load_recipe
from quantrecipe.runner.pipeline import override, run


@dataclass(frozen=True, slots=True)
class Contestant:
    """A name for the table and what is to be carried out."""

    name: str
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Outcome:
    """The whole record of a run (results.json), or the line that says why there is none."""

    name: str
    results: dict[str, Any] | None
    failure: str | None = None


def by_backend(recipe: Recipe, names: Sequence[str], output: Path) -> list[Contestant]:
    """The recipe through each backend in its own format, without a fallback. Raises BackendError."""
    found = []
    for name in names:
        backend(name)
        changes = {"backend": name, "fallback": name, "format": "auto"}
        quantization = recipe.quantization.model_copy(update=changes)
        found.append(Contestant(name, _into(recipe.model_copy(update={"quantization": quantization}), output / name)))
    return found


def by_recipe(paths: Sequence[Path], output: Path) -> list[Contestant]:
    """Several recipes of one model. Raises RecipeError where they are not comparable."""
    recipes = {path.stem: load_recipe(path) for path in paths}
    if len(recipes) != len(paths):
        raise RecipeError("two recipes have one name", value=", ".join(sorted(recipes)), remedy="rename one")
    first = next(iter(recipes.values()))
    for name, one in recipes.items():
        if (one.model, one.evaluation) != (first.model, first.evaluation):
            raise RecipeError("the recipes differ in model or evaluation", value=name, remedy="let both be the same")
    return [Contestant(name, _into(one, output / name)) for name, one in recipes.items()]


def _into(recipe: Recipe, folder: Path) -> Recipe:
    """With its output there, and no gates: a comparison judges nothing."""
    return override(recipe, None, folder).model_copy(update={"gates": type(recipe.gates)()})


def compare(
    contestants: Sequence[Contestant], progress: Progress, overwrite: bool, device: str | None
) -> list[Outcome]:
    """Carry all out, one after the other; what fails is a line in the table."""
    return list(_carry_out(contestants, progress, overwrite, device))


def _carry_out(
    contestants: Sequence[Contestant], progress: Progress, overwrite: bool, device: str | None
) -> Iterator[Outcome]:
    for one in contestants:
        progress.note(f"compare: {one.name}")
        try:
            done = run(one.recipe, overwrite=overwrite, device=device, progress=progress)
        except QuantRecipeError as error:
            yield Outcome(one.name, None, error.line())
        else:
            yield Outcome(one.name, done.results)
