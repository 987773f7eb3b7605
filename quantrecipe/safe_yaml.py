"""YAML as plain data with line numbers, read so that no file is slow, large in memory, or more than data.

Refused, with the line: aliases, repeated or composite keys, tags beyond YAML's plain ones, nesting deeper than
``MAX_DEPTH``, more than ``MAX_NODES`` parts, numbers longer than ``MAX_NUMBER`` characters. A date stays text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from quantrecipe.errors import QuantRecipeError

MAX_BYTES = 1_000_000
MAX_DEPTH = 40
MAX_NODES = 20_000
MAX_NUMBER = 40

Keys = tuple[str | int, ...]
_TAG = "tag:yaml.org,2002:"
_NUMBERS = (f"{_TAG}int", f"{_TAG}float")
_WORDS = (f"{_TAG}null", f"{_TAG}bool")
_TEXTS = (f"{_TAG}str", f"{_TAG}timestamp")  # a recipe has no dates


class Document(NamedTuple):
    """A YAML text as plain data, and the line (from 1) at which each part begins, a key's at the key."""

    data: Any
    lines: dict[Keys, int]

    def line(self, keys: Sequence[str | int]) -> int:
        """The line of the deepest part on that path that the text has."""
        path = tuple(keys)
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_text(path: str | Path, what: str, error: type[QuantRecipeError]) -> str:
    """The UTF-8 text of a file of at most ``MAX_BYTES``. Raises ``error``, which names the ``what``."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as fault:
        reason = getattr(fault, "strerror", None) or "not a path"
        raise error(f"cannot read the {what}", value=str(path), limit=reason) from fault
    if len(data) > MAX_BYTES:
        raise error(f"the {what} is too large", value=str(path), limit=f"at most {MAX_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise error(f"the {what} is not UTF-8 text", value=str(path), remedy="save it as UTF-8") from fault


def parse(text: str, name: str, error: type[QuantRecipeError]) -> Document:
    """A YAML text; ``name`` stands in errors for the file. Raises ``error`` with the line of the fault."""
    lines: dict[Keys, int] = {}
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return Document(_plain(loader, node, (), lines) if node else None, lines)
    except yaml.MarkedYAMLError as fault:
        mark = fault.problem_mark
        raise error(f"{name}:{mark.line + 1 if mark else 1}: not valid YAML", limit=fault.problem) from fault
    except (yaml.YAMLError, ValueError, TypeError, LookupError, OverflowError, RecursionError) as fault:
        raise error(f"{name}:1: not valid YAML", limit=str(fault)[:200]) from fault
    finally:
        if loader:
            loader.dispose()


class _Loader(yaml.SafeLoader):
    """Composes nodes and counts them; what they mean is for ``_plain`` to say."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark: Any = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self.depth, self.nodes = self.depth + 1, self.nodes + 1
        if self.check_event(yaml.AliasEvent):
            raise _fault("aliases are not allowed", mark)
        if self.depth > MAX_DEPTH:
            raise _fault(f"nested deeper than {MAX_DEPTH} levels", mark)
        if self.nodes > MAX_NODES:
            raise _fault(f"more than {MAX_NODES} parts", mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def _fault(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(None, None, problem, mark)


def _plain(loader: _Loader, node: yaml.Node, keys: Keys, lines: dict[Keys, int]) -> Any:
    lines.setdefault(keys, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        return [_plain(loader, item, (*keys, index), lines) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
        return _mapping(loader, node, keys, lines)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(loader, node)
    raise _fault(f"tag {node.tag!r} is not allowed", node.start_mark)


def _mapping(loader: _Loader, node: yaml.MappingNode, keys: Keys, lines: dict[Keys, int]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _fault("a key must be a plain word", key.start_mark)
        if key.value in result:
            raise _fault(f"key {key.value!r} twice", key.start_mark)
        lines[(*keys, key.value)] = key.start_mark.line + 1
        result[key.value] = _plain(loader, value, (*keys, key.value), lines)
    return result


def _scalar(loader: _Loader, node: yaml.ScalarNode) -> Any:
    if node.tag in _TEXTS:
        return node.value
    if node.tag in _NUMBERS and len(node.value) > MAX_NUMBER:
        raise _fault(f"a number of more than {MAX_NUMBER} characters", node.start_mark)
    if node.tag in _NUMBERS or node.tag in _WORDS:
        try:
            return loader.construct_object(node)
        except (KeyError, ValueError) as error:
            raise _fault(f"not a {node.tag.removeprefix(_TAG)}: {node.value[:40]!r}", node.start_mark) from error
    raise _fault(f"tag {node.tag!r} is not allowed", node.start_mark)
