"""The fewest patterns that mean exactly some layers of a model."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from quantrecipe.modeling.experts import experts_of
from quantrecipe.modeling.skeleton import LinearInfo


@dataclass(slots=True)
class _Leaf:
    """Layers that differ by their block alone. wanted, free, others: their blocks, by what a pattern may do there."""

    wanted: set[int] = field(default_factory=set)
    free: set[int] = field(default_factory=set)
    others: set[int] = field(default_factory=set)

    def takes(self, blocks: frozenset[int] | None) -> bool:
        """Whether a pattern over these blocks (None: all) means what is wanted and nothing that is not."""
        if blocks is None:
            return not self.others
        return self.wanted <= blocks and not self.others & blocks


#: (what stands before the block's number, what stands behind it, as regular expressions)
_Place = tuple[str, str]


def patterns(linears: Iterable[LinearInfo], wanted: Collection[str], free: Collection[str] = ()) -> list[str]:
    """Targets that match every wanted layer, any of the free ones, and no other; ``re:`` or full names.

    linears: every matrix of the model. free: layers that another entry decides whatever these patterns say. Layers
    of several blocks become one pattern, and so do kinds of layers that share their blocks.
    """
    leaves, alone = _leaves(linears, set(wanted), set(free))
    found: dict[tuple[str, frozenset[int] | None], list[str]] = {}
    for (head, tail), leaf in sorted(leaves.items(), key=lambda item: -len(item[1].wanted)):
        if leaf.wanted:
            blocks = next((b for h, b in found if h == head and leaf.takes(b)), _own_blocks(leaf))
            found.setdefault((head, blocks), []).append(tail)
    return [_pattern(head, blocks, tails) for (head, blocks), tails in found.items()] + alone


def _own_blocks(leaf: _Leaf) -> frozenset[int] | None:
    return None if leaf.takes(None) else frozenset(leaf.wanted)


def _leaves(linears: Iterable[LinearInfo], wanted: set[str], free: set[str]) -> tuple[dict[_Place, _Leaf], list[str]]:
    """Layers of blocks by their kind, and the wanted ones outside, by name."""
    leaves: dict[_Place, _Leaf] = {}
    alone = []
    for info in linears:
        if info.block is None:
            alone += [info.name] if info.name in wanted else []
            continue
        leaf = leaves.setdefault(_place(info), _Leaf())
        (leaf.wanted if info.name in wanted else leaf.free if info.name in free else leaf.others).add(info.block)
    return leaves, alone


def _place(info: LinearInfo) -> _Place:
    """What is before and behind the block's number; the experts of a block are one kind."""
    head, tail = re.split(rf"\.{info.block}\.", info.name, maxsplit=1)
    path = experts_of(f"{info.name}.weight")
    if path is None:
        return re.escape(head), re.escape(tail)
    inside = re.split(rf"\.{info.block}\.", path, maxsplit=1)[1]
    return re.escape(head), rf"{re.escape(inside)}\.\d+\.{re.escape(info.name.rpartition('.')[2])}"


def _pattern(head: str, blocks: frozenset[int] | None, tails: list[str]) -> str:
    number = r"\d+" if blocks is None else _any([str(one) for one in sorted(blocks)])
    return rf"re:{head}\.{number}\.{_any(_by_parent(tails))}$"


def _by_parent(tails: list[str]) -> list[str]:
    """``self_attn.q_proj`` and ``self_attn.k_proj`` as ``self_attn.(q_proj|k_proj)``."""
    parents: dict[str, list[str]] = {}
    for tail in tails:
        parent, dot, leaf = tail.rpartition(r"\.")
        parents.setdefault(parent + dot, []).append(leaf)
    alone = sorted(parents.pop("", []))
    return alone + [parent + _any(sorted(leaves)) for parent, leaves in sorted(parents.items())]


def _any(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"({'|'.join(words)})"
