"""Finds a model in the compiled catalogue by any name that people type."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from quantrecipe.catalog.build import build_spec
from quantrecipe.errors import ModelError, did_you_mean
from quantrecipe.model import ModelSpec

COMPILED = Path(__file__).with_name("compiled.json")

# A tuned variant has its base's shape. Parts of a name that say "tuned", anywhere in it or at its end.
_TUNED = re.compile(r"-(instruct|chat|it|base|pt|hf|text|sft|dpo|thinking|preview|0[1-9]\d\d|2[3-6]\d\d)(?=-|$)")


@cache
def _data() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(COMPILED.read_bytes())
    return data


@cache
def _plugin_entries() -> dict[str, dict[str, Any]]:
    """Models that plugins bring, by name; asked only for names that the catalogue does not have."""
    from quantrecipe.plugins.manager import model_files

    found: dict[str, dict[str, Any]] = {}
    for path in model_files():
        from quantrecipe.catalog.compile import entries

        found.update(entries(path))
    return found


def names(plugins: bool = False) -> list[str]:
    """Every model's name, in the order of the catalogue."""
    return [*_data()["models"], *(_plugin_entries() if plugins else ())]


def families() -> dict[str, list[str]]:
    """Family -> its models, in the order of the catalogue."""
    found: dict[str, list[str]] = {}
    for name, entry in _data()["models"].items():
        found.setdefault(entry["family"], []).append(name)
    return found


def spec(name: str) -> ModelSpec:
    """The catalogue's model of exactly that name."""
    data = _data()
    entry = data["models"].get(name) or _plugin_entries()[name]
    return build_spec(name, entry, data["architectures"][entry["architecture"]])


def _spellings(text: str) -> Iterator[str]:
    """The name as typed, without its owner, and without the words that say "tuned"."""
    name = re.sub(r"[\s_]+", "-", text.strip().lower())
    tail = name.rsplit("/", 1)[-1]
    yield from (name, tail)
    while (shorter := _TUNED.sub("", tail, count=1)) != tail:
        tail = shorter
        yield tail


def find(text: str) -> ModelSpec | None:
    """The model that a name means; None where the catalogue has none."""
    known = _data()["aliases"]
    for spelling in _spellings(text):
        if spelling in known:
            return _as_typed(text, spec(known[spelling]), spelling)
    extra = _plugin_aliases()
    hit = next((extra[spelling] for spelling in _spellings(text) if spelling in extra), None)
    return spec(hit) if hit else None


def _plugin_aliases() -> dict[str, str]:
    """Every spelling of a model that a plugin brings -> its name."""
    found = {name: name for name in _plugin_entries()}
    for name, entry in _plugin_entries().items():
        found |= {alias.lower(): name for alias in entry.get("aliases", ())}
    return found


def _as_typed(text: str, found: ModelSpec, spelling: str) -> ModelSpec:
    """The model with the hub id that the user typed, so that a tuned variant stays that variant."""
    if "/" in text:
        return replace(found, hub_id=text.strip())
    typed = text.strip().lower().replace("_", "-")
    tuned = _data()["models"].get(found.id, {}).get("tuned")
    if tuned and found.hub_id and spelling != typed and tuned.lower() in typed:
        return replace(found, hub_id=found.hub_id.removesuffix("-pt") + tuned)
    return found


def find_family(text: str) -> list[ModelSpec]:
    """The members of a family, by parameters. Raises ModelError naming the nearest families."""
    key = re.sub(r"[\s_]+", "-", text.strip().lower())
    found = families()
    hit = next((name for name in found if key in (name, name.replace("-", ""))), None)
    if hit is None:
        one = find(text)
        hit = one.family if one else None
    if hit is None:
        remedy = did_you_mean(text, found) or f"families: {', '.join(found)}"
        raise ModelError("unknown family", value=text, remedy=remedy)
    return sorted((spec(name) for name in found[hit]), key=lambda model: model.parameters)


# Families that share a tokenizer and a way of training: their members stand in for each other.
_KIN = (("llama-3", "llama-3.1", "llama-3.2", "llama-3.3"), ("llama", "llama-2"))


def siblings(model: ModelSpec) -> list[ModelSpec]:
    """The other members of the model's family, and of families of its tokenizer; one of each size."""
    kin = next((group for group in _KIN if model.family in group), (model.family,))
    found: dict[int, ModelSpec] = {}
    for family in (model.family, *kin):
        for name in families().get(family, ()):
            one = spec(name)
            found.setdefault(one.parameters, one)
    return [one for size, one in found.items() if size != model.parameters]


def unknown(text: str) -> ModelError:
    """The error for a name that nothing answers to."""
    remedy = did_you_mean(text, _data()["aliases"])
    return ModelError(
        "unknown model",
        value=text,
        limit="a catalogue name (qadvise models), a hub id, a folder or a config.json",
        remedy=remedy or "list them: qadvise models",
    )
