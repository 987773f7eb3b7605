"""Which installed backend can carry a candidate out, by the capabilities that backends state as data."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from quantrecipe.advisor.candidates import Way

if TYPE_CHECKING:
    from quantrecipe.plugins.contract import Capabilities

NONE_INSTALLED = "no installed backend carries it out"


@cache
def capabilities() -> dict[str, Capabilities]:
    """What each registered backend can do, the native one first."""
    from quantrecipe.plugins.manager import backends

    found = {name: backend.capabilities() for name, backend in backends().items()}
    return dict(sorted(found.items(), key=lambda item: item[0] != "native"))


@cache
def backend_for(way: Way) -> str | None:
    """The first backend that can carry a way out; None where none can."""
    return next((name for name, able in capabilities().items() if _can(able, way)), None)


def _can(able: Capabilities, way: Way) -> bool:
    """Capabilities speak of inputs a token at a time: no backend states that it groups them."""
    scheme = way.scheme
    method = "rtn" if way.method == "nf4" else way.method
    return (
        scheme.bits in able.weight_bits.get(scheme.type, ())
        and scheme.act_bits in (16, *able.activation_bits)
        and not scheme.act_group
        and (scheme.act_type in ("none", "int") or "float" in able.weight_bits)
        and ("group" if scheme.group else "channel") in able.strategies
        and method in able.methods
        and way.format in able.formats
        and (scheme.symmetric or able.asymmetric)
        and (not scheme.group or able.group_sizes is None or scheme.group in able.group_sizes)
    )
