"""The hooks of quantrecipe. Each receives ``register``; the host checks names and order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from quantrecipe.plugins.contract import Backend

hookspec = pluggy.HookspecMarker("quantrecipe")
hookimpl = pluggy.HookimplMarker("quantrecipe")


@hookspec
def quantrecipe_register_backends(register: Callable[[Backend], None]) -> None:
    """Call ``register(backend)`` for each backend; fires when a command first asks for backends."""


@hookspec
def quantrecipe_register_methods(register: Callable[[str, Callable[..., Any]], None]) -> None:
    """Call ``register(name, function)`` for each method of the native backend; fires before a run."""


@hookspec
def quantrecipe_register_rules(register: Callable[[Path], None]) -> None:
    """Call ``register(path)`` for each rule pack (YAML); fires when the advisor loads its rules."""


@hookspec
def quantrecipe_register_models(register: Callable[[Path], None]) -> None:
    """Call ``register(path)`` for each catalogue file (YAML); fires when a model name is looked up."""


@hookspec
def quantrecipe_register_report_sections(
    register: Callable[[str, Callable[[Mapping[str, Any]], str]], None],
) -> None:
    """Call ``register(title, render)``; ``render(results)`` returns Markdown. Fires when a report is made."""
