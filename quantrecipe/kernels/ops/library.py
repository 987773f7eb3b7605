"""The namespace ``quantrecipe`` of torch.library, and how implementations enter it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from quantrecipe.kernels.ops.schemas import SCHEMAS

_LIBRARY: Any = torch.library.Library  # untyped in torch
#: Kept for the life of the process: torch forgets the operators of a library that is collected.
LIBRARY: Any = _LIBRARY("quantrecipe", "DEF")
for _name, _schema in SCHEMAS.items():
    LIBRARY.define(_name + _schema, tags=(torch.Tag.pt2_compliant_tag,))

Function = TypeVar("Function", bound=Callable[..., Any])


def implement(name: str, key: str) -> Callable[[Function], Function]:
    """Register the decorated function as operator ``name`` for a dispatch key (``CPU``, ``CUDA``)."""

    def register(function: Function) -> Function:
        LIBRARY.impl(name, function, key)
        return function

    return register


def fake(name: str) -> Callable[[Function], Function]:
    """Register the decorated function as what operator ``name`` gives in shape and dtype."""

    def register(function: Function) -> Function:
        torch.library.register_fake(f"quantrecipe::{name}", function, lib=LIBRARY)
        return function

    return register
