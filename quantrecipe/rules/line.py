"""One line of a rule: text, tree, and the facts that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple


class Line(NamedTuple):
    """One line of a rule: its text, its tree, and the facts that it reads, each once."""

    text: str
    tree: list[Any]
    facts: tuple[str, ...]

    def on_candidate(self) -> bool:
        """Does it read a fact of the candidate? If not, it is settled once a query."""
        return any(name.startswith("candidate.") for name in self.facts)


def line(text: str, tree: list[Any]) -> Line:
    """A line with the facts of its tree."""
    return Line(text, tree, tuple(dict.fromkeys(_facts(tree))))


def _facts(tree: list[Any]) -> Iterator[str]:
    if tree[0] in ("field", "none", "known"):
        yield tree[1]
    elif tree[0] in ("in", "not in"):
        yield from _facts(tree[1])
    elif tree[0] != "const":
        for part in tree[1:]:
            if isinstance(part, list):
                yield from _facts(part)
