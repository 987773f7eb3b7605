"""Registers the backend that trains; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable

from quantrecipe.plugins.contract import Backend
from quantrecipe.plugins.hookspecs import hookimpl
from quantrecipe.plugins.training.backend import TrainingBackend


@hookimpl
def quantrecipe_register_backends(register: Callable[[Backend], None]) -> None:
    """One backend for all kinds of training."""
    register(TrainingBackend())
