"""Registers the native backend; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable

from quantrecipe.plugins.contract import Backend
from quantrecipe.plugins.hookspecs import hookimpl
from quantrecipe.plugins.native.backend import NativeBackend


@hookimpl
def quantrecipe_register_backends(register: Callable[[Backend], None]) -> None:
    """The first-party backend goes through the same door as any other."""
    register(NativeBackend())
