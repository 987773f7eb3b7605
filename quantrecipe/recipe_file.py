"""Recipes as YAML: read safely, with the line in every error; written in a fixed order."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from quantrecipe.errors import RecipeError, did_you_mean
from quantrecipe.recipe import Recipe

_MAX_BYTES = 1_000_000
_MAX_DEPTH = 40


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases, repeated keys, or deep nesting (each a way to hide or to blow up)."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise self._refuse("aliases are not allowed")
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise self._refuse(f"nested deeper than {_MAX_DEPTH} levels")
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def _refuse(self, problem: str) -> yaml.MarkedYAMLError:
        mark: Any = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        return yaml.MarkedYAMLError(None, None, problem, mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(None, None, "a key must be a plain word", key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(None, None, f"key {key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def load_recipe(path: str | Path) -> Recipe:
    """The recipe in that file. Raises RecipeError: file, line, value, what is allowed, the nearest key."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise RecipeError("cannot read the recipe", value=str(path), limit=error.strerror) from error
    if len(data) > _MAX_BYTES:
        raise RecipeError("the recipe is too large", value=str(path), limit=f"at most {_MAX_BYTES} bytes")
    try:
        return parse_recipe(data.decode("utf-8"), name=str(path))
    except UnicodeDecodeError as error:
        raise RecipeError("the recipe is not UTF-8 text", value=str(path), remedy="save it as UTF-8") from error


def parse_recipe(text: str, name: str = "recipe") -> Recipe:
    """The recipe in a YAML text; ``name`` stands in errors for the file."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise RecipeError(f"{name}:{mark.line + 1 if mark else '?'}: not valid YAML", limit=error.problem) from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise RecipeError(f"{name}: not valid YAML", limit=str(error)[:200]) from error
    finally:
        if loader:
            loader.dispose()
    if not isinstance(data, dict):
        raise RecipeError(f"{name}: not a recipe", limit="a recipe is a mapping with version, model, quantization")
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise _explain(error, node, name) from error


def _explain(error: ValidationError, node: yaml.Node | None, name: str) -> RecipeError:
    """The first fault as one line: where, what, the value, what is allowed, the nearest known key."""
    faults = error.errors(include_url=False)
    fault = min(faults, key=lambda one: one["type"] != "extra_forbidden")  # a misspelt key is also a missing one
    keys = [part for part in fault["loc"] if not (isinstance(part, str) and part in ("rtn", "gptq", "other"))]
    line = _line(node, keys)
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


def _line(node: yaml.Node | None, keys: Iterable[Any]) -> int:
    """The line, from 1, of the deepest key on the path that the text has."""
    line = node.start_mark.line if node else 0
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            hit = next((pair for pair in node.value if pair[0].value == str(key)), None)
            if hit is None:
                break
            line, node = hit[0].start_mark.line, hit[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line
    return line + 1


def _known_keys(keys: list[Any], loc: tuple[Any, ...]) -> set[str]:
    """The keys that the part of the recipe at that path knows, read off its JSON schema."""
    schema = Recipe.model_json_schema()
    place: dict[str, Any] = schema
    for key in keys:
        place = _child(place, key, schema["$defs"])
    variants = [_resolve(option, schema["$defs"]) for option in (place.get("anyOf") or place.get("oneOf") or [place])]
    chosen = [v for v in variants if v.get("properties", {}).get("name", {}).get("const") in loc] or variants
    known = {name for variant in chosen for name in variant.get("properties", {})}
    return known | {"scheme"} if "targets" in known else known


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
    data = {"version": recipe.version, **data}
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Lists of plain values and short mappings on one line, as a person would write them."""


def _represent_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.Node:
    flat = all(not isinstance(item, dict | list) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flat)


def _represent_dict(dumper: yaml.SafeDumper, items: dict[str, Any]) -> yaml.Node:
    flat = 0 < len(items) <= 6 and all(isinstance(v, bool | int | float) or _short(v) for v in items.values())
    return dumper.represent_mapping("tag:yaml.org,2002:map", items.items(), flow_style=flat)


def _short(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= 24)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(dict, _represent_dict)
