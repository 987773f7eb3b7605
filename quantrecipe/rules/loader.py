"""Loads rules: the package's own from their compiled form, then plugins', then the user's files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from quantrecipe.rules.engine import Replaced, RuleSet
from quantrecipe.rules.rule import Rule, rule_from_json

COMPILED = Path(__file__).with_name("compiled_rules.json")
PACKS = Path(__file__).with_name("packs")


def load_rules(files: Iterable[str | Path] = (), plugin_packs: Iterable[str | Path] = ()) -> RuleSet:
    """The package's rules, overridden by id by the packs of plugins, and those by ``files`` (``--rules``).

    Raises RuleError with file and line where a pack does not check.
    """
    rules = {rule.id: rule for rule in builtin_rules()}
    replaced: list[Replaced] = []
    for path in [*plugin_packs, *files]:
        for rule in pack_rules(path):
            if rule.id in rules:
                replaced.append(Replaced(rule.id, rules[rule.id].origin, rule.origin))
            rules[rule.id] = rule
    return RuleSet(tuple(rules.values()), tuple(replaced))


@cache
def builtin_rules() -> tuple[Rule, ...]:
    """The package's rules; neither YAML nor pydantic is touched."""
    return tuple(rule_from_json(data, "quantrecipe") for data in _compiled()["rules"])


@cache
def builtin_packs() -> dict[str, dict[str, str]]:
    """Title, about and read (version or date of the table, or empty) of each of the package's packs."""
    packs: dict[str, dict[str, str]] = _compiled()["packs"]
    return packs


@cache
def _compiled() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(COMPILED.read_bytes())
    return data


def pack_rules(path: str | Path) -> list[Rule]:
    """The rules of one YAML file, checked. Raises RuleError."""
    from quantrecipe.rules.pack_file import read_pack  # pydantic and yaml: only for packs that are not ours

    return [part.rule(str(path)) for part in read_pack(path).rules]
