"""Loads plugins once, on first use, and wraps every hook in a typed function."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from quantrecipe.errors import BackendError, QuantRecipeError, did_you_mean
from quantrecipe.plugins import hookspecs
from quantrecipe.plugins.contract import Backend

GROUP = "quantrecipe"
FIRST_PARTY = (
    "quantrecipe.plugins.native.plugin",
    "quantrecipe.plugins.training.plugin",
    "quantrecipe.plugins.isolated.plugin",
)

ReportSection = Callable[[Mapping[str, Any]], str]


@cache
def plugin_manager() -> pluggy.PluginManager:
    """All plugins, loaded: first-party ones, then the entry points that QUANTRECIPE_PLUGINS allows."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    for module in FIRST_PARTY:
        manager.register(import_module(module), name=module)
    for entry in _wanted(entry_points(group=GROUP), os.environ.get("QUANTRECIPE_PLUGINS")):
        _load(manager, entry)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise QuantRecipeError("a plugin implements no known hook", limit=str(error)) from error
    return manager


def _wanted(found: Any, wanted: str | None) -> list[EntryPoint]:
    """The entry points to load: all, or those named, each of which must exist."""
    by_name: dict[str, EntryPoint] = {entry.name: entry for entry in found}
    if wanted is None:
        return [by_name[name] for name in sorted(by_name)]
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names:
        if name not in by_name:
            raise QuantRecipeError(
                "QUANTRECIPE_PLUGINS names a plugin that is not installed",
                value=name,
                limit=f"installed: {', '.join(sorted(by_name)) or 'none'}",
                remedy=did_you_mean(name, by_name),
            )
    return [by_name[name] for name in names]


def _load(manager: pluggy.PluginManager, entry: EntryPoint) -> None:
    try:
        manager.register(entry.load(), name=entry.name)
    except Exception as error:
        raise QuantRecipeError(
            f"plugin {entry.name!r} ({entry.value}) does not load",
            limit=f"{type(error).__name__}: {error}",
            remedy="uninstall it, or name the plugins you want in QUANTRECIPE_PLUGINS",
        ) from error


def _collect(hook: str, check: Callable[[Any], str]) -> dict[str, Any]:
    """What the plugins register through one hook, by name; a second one of a name is an error."""
    found: dict[str, Any] = {}

    def register(thing: Any, *more: Any) -> None:
        name = check(thing)
        if name in found:
            raise QuantRecipeError(f"{hook}: registered twice", value=name, remedy="uninstall one of the plugins")
        found[name] = more[0] if more else thing

    getattr(plugin_manager().hook, hook)(register=register)
    return found


@cache
def backends() -> dict[str, Backend]:
    """Every registered backend by name."""
    return _collect("quantrecipe_register_backends", lambda backend: str(backend.name))


def backend(name: str) -> Backend:
    """The backend of that name. Raises BackendError naming the known ones."""
    known = backends()
    if name not in known:
        raise BackendError(
            "unknown backend",
            value=name,
            limit=f"known: {', '.join(sorted(known))}",
            remedy=did_you_mean(name, known),
        )
    return known[name]


def methods() -> dict[str, Callable[..., Any]]:
    """Methods that plugins add to the native backend, by name."""
    return _collect("quantrecipe_register_methods", str)


def rule_packs() -> list[Path]:
    """Rule packs that plugins bring, in the order of registration."""
    return [Path(path) for path in _collect("quantrecipe_register_rules", str).values()]


def model_files() -> list[Path]:
    """Catalogue files that plugins bring."""
    return [Path(path) for path in _collect("quantrecipe_register_models", str).values()]


def report_sections() -> dict[str, ReportSection]:
    """Sections that plugins add to the report, by title."""
    return _collect("quantrecipe_register_report_sections", str)
