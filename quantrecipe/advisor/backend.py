"""Which installed backend can carry a candidate out, by the capabilities that backends state as data."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from quantrecipe.advisor.candidates import Way

if TYPE_CHECKING:
    from quantrecipe.plugins.contract import Availability, Capabilities

NONE_ABLE = "no backend carries it out"


@cache
def capabilities() -> dict[str, Capabilities]:
    """What each registered backend can do, the native one first."""
    from quantrecipe.plugins.manager import backends

    found = {name: backend.capabilities() for name, backend in backends().items()}
    return dict(sorted(found.items(), key=lambda item: item[0] != "native"))


@cache
def installed() -> frozenset[str]:
    """Backends that can run here, as they say themselves."""
    from quantrecipe.plugins.manager import backends

    return frozenset(name for name, backend in backends().items() if backend.availability().available)


def availability(name: str) -> Availability:
    """Whether a backend can run here, and what is missing."""
    from quantrecipe.plugins.manager import backend

    return backend(name).availability()


@cache
def backend_for(way: Way) -> str | None:
    """A backend that can carry a way out, an installed one first, then the native one; None where none can."""
    able = [name for name, found in capabilities().items() if can(found, way)]
    return min(able, key=lambda name: name not in installed(), default=None)


def can(able: Capabilities, way: Way) -> bool:
    """Whether capabilities cover a way: its numbers, its format and every part of its method."""
    return _weights(able, way) and _inputs(able, way) and _method(able, way) and way.format in able.formats


def _weights(able: Capabilities, way: Way) -> bool:
    scheme = way.scheme
    return (
        scheme.bits in able.weight_bits.get(scheme.type, ())
        and ("group" if scheme.group else "channel") in able.strategies
        and (scheme.symmetric or able.asymmetric)
        and (not scheme.group or able.group_sizes is None or scheme.group in able.group_sizes)
        and (way.embedding_bits == 16 or able.embeddings)
    )


def _inputs(able: Capabilities, way: Way) -> bool:
    scheme = way.scheme
    if scheme.act_bits == 16:
        return True
    how = "group" if scheme.act_group else "token"
    return (
        scheme.act_bits in able.activation_bits
        and scheme.act_type in able.activation_types
        and how in able.activation_strategies
    )


def _method(able: Capabilities, way: Way) -> bool:
    """By the pipeline's own name, or by its parts."""
    parts = way.pipeline
    whole = able.takes(way.method, way.scheme.type)
    by_parts = able.takes(parts.rounding, way.scheme.type) and set(parts.transforms) <= set(able.transforms)
    return (whole or by_parts) and (not parts.compensation or parts.compensation in able.compensations)


def caches(name: str | None, kind: str, bits: int) -> bool:
    """Whether a backend can find the scales of a KV cache of that type and width."""
    return name is not None and bits in capabilities()[name].kv_cache_bits.get(kind, ())


def takes_pipeline(name: str, method: str) -> bool:
    """Whether a backend knows a pipeline by its own name, rather than by its parts."""
    return method in capabilities()[name].methods
