"""Compiles the package's packs to ``compiled_rules.json``: parsed lines, and the cited rows as text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from quantrecipe.rules.citations import describe
from quantrecipe.rules.loader import PACKS
from quantrecipe.rules.pack import Pack
from quantrecipe.rules.pack_file import read_pack
from quantrecipe.rules.rule import Rule


def read_packs(folder: Path = PACKS) -> list[Pack]:
    """Every pack of a folder, by file name. Raises RuleError for the first that does not check."""
    return [read_pack(path) for path in sorted(folder.glob("*.yaml"))]


def compiled_rules(packs: Iterable[Pack]) -> list[Rule]:
    """The rules of the packs, with the rows that they cite."""
    return [_cited(part.rule("quantrecipe")) for pack in packs for part in pack.rules]


def _cited(rule: Rule) -> Rule:
    return rule._replace(rows=tuple(row for query in rule.evidence for row in describe(query)))


def compile_packs(packs: list[Pack]) -> str:
    """The JSON text: one line a rule, so that a change is easy to review."""
    heads = {pack.pack: {"title": pack.title, "about": pack.about, "read": pack.read or ""} for pack in packs}
    rules = [json.dumps(rule.to_json(), ensure_ascii=False) for rule in compiled_rules(packs)]
    return f'{{"packs": {json.dumps(heads, ensure_ascii=False)},\n"rules": [\n' + ",\n".join(rules) + "\n]}\n"
