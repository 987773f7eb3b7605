"""Recipes as YAML: read safely, with the line in every error; written in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from quantrecipe.errors import RecipeError, did_you_mean
from quantrecipe.recipe import Recipe
from quantrecipe.recipe_methods import METHOD_TAGS
from quantrecipe.recipe_text import recipe_yaml
from quantrecipe.recipe_training import TRAININGS
from quantrecipe.safe_yaml import Document, parse, read_text


def load_recipe(path: str | Path) -> Recipe:
    """The recipe in that file. Raises RecipeError: file, line, value, what is allowed, the nearest key."""
    return parse_recipe(read_text(path, "recipe", RecipeError), name=str(path))


def parse_recipe(text: str, name: str = "recipe") -> Recipe:
    """The recipe in a YAML text; ``name`` stands in errors for the file."""
    document = parse(text, name, RecipeError)
    if not isinstance(document.data, dict):
        raise RecipeError(f"{name}: not a recipe", limit="a recipe is a mapping with version, model, quantization")
    try:
        return Recipe.model_validate(document.data)
    except ValidationError as error:
        raise _explain(error, document, name) from error


def _explain(error: ValidationError, document: Document, name: str) -> RecipeError:
    """The first fault as one line: where, what, the value, what is allowed, the nearest known key."""
    faults = error.errors(include_url=False)
    fault = min(faults, key=lambda one: one["type"] != "extra_forbidden")  # a misspelt key is also a missing one
    keys = [part for part in fault["loc"] if not (isinstance(part, str) and part in (*METHOD_TAGS, *TRAININGS))]
    line = document.line(keys)
    where = ".".join(str(key) for key in keys) or "recipe"
    if fault["type"] == "extra_forbidden":
        known = sorted(_known_keys(keys[:-1], fault["loc"]))
        return RecipeError(
            f"{name}:{line}: unknown key {where}",
            limit=f"allowed here: {', '.join(known)}" if known else None,
            remedy=did_you_mean(str(keys[-1]), known),
        )
    value = fault.get("input")
    shown = None if fault["type"] == "missing" or isinstance(value, dict | list | BaseModel) else value
    return RecipeError(f"{name}:{line}: {where}", value=shown, limit=fault["msg"].removeprefix("Value error, "))


def _known_keys(keys: list[Any], loc: tuple[Any, ...]) -> set[str]:
    """The keys that the part of the recipe at that path knows, read off its JSON schema."""
    schema = Recipe.model_json_schema()
    place: dict[str, Any] = schema
    for key in keys:
        place = _child(place, key, schema["$defs"])
    variants = list(_variants(place, schema["$defs"]))
    chosen = [v for v in variants if v.get("properties", {}).get("name", {}).get("const") in loc] or variants
    known = {name for variant in chosen for name in variant.get("properties", {})}
    return known | {"scheme"} if "targets" in known else known


def _variants(place: dict[str, Any], definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a value at that place may be, choices of choices taken apart."""
    options = place.get("anyOf") or place.get("oneOf")
    for option in options or ():
        yield from _variants(option, definitions)
    if not options:
        yield _resolve(place, definitions)


def _resolve(place: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in place:
        place = definitions[place["$ref"].rsplit("/", 1)[1]]
    return place


def _child(place: dict[str, Any], key: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    for option in [place, *(place.get("anyOf") or []), *(place.get("oneOf") or [])]:
        known = _resolve(option, definitions)
        found = known.get("properties", {}).get(key) or known.get("items") or known.get("additionalProperties")
        if isinstance(found, dict):
            return _resolve(found, definitions)
    return {}


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML; defaults that nobody set are left out, so that it stays short."""
    data = recipe.model_dump(mode="json", exclude_unset=True)
    return recipe_yaml({"version": recipe.version, **data})
