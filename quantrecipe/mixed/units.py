"""Units: layers that must share a format, since engines compute them as one matrix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from quantrecipe.modeling.experts import experts_of
from quantrecipe.modeling.plan import LINEAR_KINDS
from quantrecipe.modeling.skeleton import LinearInfo
from quantrecipe.runner.engine_check import FUSED

#: Name of the unit of all experts of a model, for readers that take one scheme for the experts of all blocks.
EXPERTS = "experts"


@dataclass(frozen=True, slots=True)
class Unit:
    """Layers that get one scheme and method together.

    name: the layer's own, ``…self_attn.q_proj+k_proj+v_proj``, or the module of a block's experts.
    """

    name: str
    parts: tuple[LinearInfo, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Full names of the layers."""
        return tuple(part.name for part in self.parts)

    @property
    def weights(self) -> int:
        """Weights of all the layers."""
        return sum(part.rows * part.columns for part in self.parts)

    @property
    def block(self) -> int | None:
        """The decoder block that it lies in; None outside of them, or for experts of all blocks."""
        blocks = {part.block for part in self.parts}
        return blocks.pop() if len(blocks) == 1 else None

    @property
    def in_blocks(self) -> bool:
        """Whether calibration reaches its inputs."""
        return all(part.block is not None for part in self.parts)


def units_of(linears: Iterable[LinearInfo], fuses: bool = True, experts_alike: bool = False) -> tuple[Unit, ...]:
    """The units of a model's matrices (``Skeleton.linears``), in its own order.

    Linear layers of the decoder blocks, and an output head that is not tied. Routers, embeddings and what else lies
    outside the blocks are no units: they stay as they are. fuses: the engine fuses q, k, v and gate, up.
    experts_alike: its reader takes one scheme for the experts of all blocks, not of one.
    """
    found: dict[str, list[LinearInfo]] = {}
    for info in filter(_is_choice, linears):
        found.setdefault(_name(info, fuses, experts_alike), []).append(info)
    return tuple(Unit(_shortened(name, parts), tuple(parts)) for name, parts in found.items())


def _is_choice(info: LinearInfo) -> bool:
    inside = info.block is not None or info.is_head
    return info.kind in LINEAR_KINDS and inside and not info.is_router and not info.is_tied


def _name(info: LinearInfo, fuses: bool, experts_alike: bool) -> str:
    """The unit that a layer belongs to, by the set that would be fused if all of it were there."""
    path = experts_of(f"{info.name}.weight")
    if path is not None:
        return EXPERTS if experts_alike else path
    parent, _, leaf = info.name.rpartition(".")
    together = next((leaves for leaves in FUSED if leaf in leaves), None) if fuses else None
    return info.name if together is None else f"{parent}.{'+'.join(together)}"


def _shortened(name: str, parts: list[LinearInfo]) -> str:
    """The name with the layers that are there."""
    if "+" not in name:
        return name
    parent = name.rpartition(".")[0]
    return f"{parent}.{'+'.join(part.name.rpartition('.')[2] for part in parts)}"
