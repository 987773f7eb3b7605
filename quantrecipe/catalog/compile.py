"""Compiles the catalogue's YAML to one JSON file, which is what a command reads at start."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quantrecipe.errors import ModelError
from quantrecipe.safe_yaml import parse, read_text

FOLDER = Path(__file__).parent
_LAYOUTS = "architectures.yaml"


def _read(path: Path) -> dict[str, Any]:
    data = parse(read_text(path, "catalogue file", ModelError), str(path), ModelError).data
    if not isinstance(data, dict):
        raise ModelError(f"{path}: not a catalogue file", limit="a mapping with source, defaults, families")
    return data


def layouts(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Every architecture's layout, ``like`` filled in."""
    raw = _read(folder / _LAYOUTS)
    found: dict[str, dict[str, Any]] = {}
    for name, layout in raw.items():
        base = found[layout["like"]] if "like" in layout else {}
        found[name] = {**base, **{key: value for key, value in layout.items() if key != "like"}}
    return found


def entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The models of one file: defaults, family, tokenizer and source filled in. Raises ModelError."""
    data = _read(path)
    defaults = dict(data.get("defaults", {}))
    org, tokenizers = defaults.pop("org", None), data.get("tokenizers", {})
    for family, models in data.get("families", {}).items():
        for name, own in models.items():
            entry = {**defaults, **own, "family": family, "source": data["source"]}
            if family in tokenizers:
                entry.setdefault("tokenizer", tokenizers[family])
            if "config" in entry:
                entry |= _from_config(FOLDER.parent / entry.pop("config"))
            if "hub" not in entry and org:
                entry["hub"] = f"{org}/{name}"
            yield name, _numbers(entry, f"{path.name}: {name}")


def _from_config(path: Path) -> dict[str, Any]:
    """The dimensions of a Llama-like config.json that ships with the package."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not a config.json", limit=str(error)[:200]) from error
    names = {
        "hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
        "kv_heads": "num_key_value_heads", "head_dim": "head_dim", "intermediate": "intermediate_size",
        "vocab": "vocab_size", "context": "max_position_embeddings", "tied": "tie_word_embeddings",
    }  # fmt: skip
    return {ours: config[theirs] for ours, theirs in names.items() if config.get(theirs) is not None}


def _numbers(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """YAML reads ``15e12`` as text; sizes come out as whole numbers."""
    for key in ("published", "training_tokens"):
        if entry.get(key) is not None:
            entry[key] = int(float(entry[key]))
    for key in ("hidden", "layers", "heads", "vocab", "context"):
        if not isinstance(entry.get(key), int) or entry[key] <= 0:
            raise ModelError(f"{where}: {key} must be a positive whole number", value=entry.get(key))
    return entry


def names_of(name: str, entry: Mapping[str, Any]) -> Iterator[str]:
    """Every spelling of a model in lower case: its name, its hub id with and without owner, its aliases."""
    for spelling in (name, entry.get("hub"), *entry.get("aliases", ())):
        if spelling:
            yield spelling.lower()
            yield spelling.lower().rsplit("/", 1)[-1]


def aliases(models: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Spelling -> model. Raises ModelError where two models claim one spelling."""
    found: dict[str, str] = {}
    for name, entry in models.items():
        for spelling in names_of(name, entry):
            if found.setdefault(spelling, name) != name:
                raise ModelError("two models of one name", value=spelling, limit=f"{found[spelling]} and {name}")
    return found


def compile_catalog(folder: Path = FOLDER) -> str:
    """The JSON text of the whole catalogue, one line a model, so that a change is easy to review."""
    models = dict(model for path in sorted(folder.glob("*.yaml")) if path.name != _LAYOUTS for model in entries(path))
    known = aliases(models)
    shorts = {name: {k: v for k, v in entry.items() if k != "aliases"} for name, entry in models.items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in shorts.items())
    return (
        f'{{"architectures": {json.dumps(layouts(folder))},\n'
        f'"aliases": {json.dumps(known)},\n"models": {{\n{lines}\n}}}}\n'
    )
