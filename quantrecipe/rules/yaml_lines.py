"""YAML as plain data, with the line of each part; no aliases, no repeated keys, no deep nesting."""

from __future__ import annotations

from typing import Any, NamedTuple

import yaml

from quantrecipe.rules.operands import RuleError

MAX_DEPTH = 10

Keys = tuple[str | int, ...]


class Document(NamedTuple):
    """A YAML file as plain data, and the line (from 1) at which each part begins."""

    data: Any
    lines: dict[Keys, int]


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases or deep nesting, so that no file is slow to read."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", mark)
        if self.depth >= MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {MAX_DEPTH} levels", mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def parse_document(text: str, name: str = "pack") -> Document:
    """YAML text as data with line numbers. Raises RuleError with the line of the fault."""
    lines: dict[Keys, int] = {}
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return Document(_plain(loader, node, (), lines) if node else None, lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise RuleError(f"{name}:{mark.line + 1 if mark else 1}: not valid YAML", limit=error.problem) from error
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, LookupError, TypeError) as error:
        raise RuleError(f"{name}:1: not valid YAML", limit=str(error)[:200]) from error
    finally:
        if loader:
            loader.dispose()


def _plain(loader: _Loader, node: yaml.Node, keys: Keys, lines: dict[Keys, int]) -> Any:
    lines.setdefault(keys, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, (*keys, index), lines) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, keys, lines)
    return loader.construct_object(node)


def _mapping(loader: _Loader, node: yaml.MappingNode, keys: Keys, lines: dict[Keys, int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in node.value:
        name = key.value
        if not isinstance(name, str) or name in result:
            problem = f"key {name!r} twice" if isinstance(name, str) else "a key must be a word"
            raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        lines[(*keys, name)] = key.start_mark.line + 1
        result[name] = _plain(loader, value, (*keys, name), lines)
    return result
