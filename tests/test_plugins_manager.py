"""Plugins load once, names are checked by the host, and what is wrong is one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from quantrecipe.errors import BackendError, QuantRecipeError
from quantrecipe.plugins import manager
from quantrecipe.plugins.hookspecs import hookimpl


class _Plugin:
    """A plugin of one backend, one pack, one catalogue file and one report section."""

    @hookimpl
    def quantrecipe_register_backends(self, register: Callable[[Any], None]) -> None:
        register(SimpleNamespace(name="toy"))

    @hookimpl
    def quantrecipe_register_methods(self, register: Callable[[str, Any], None]) -> None:
        register("toy-method", len)

    @hookimpl
    def quantrecipe_register_rules(self, register: Callable[[Path], None]) -> None:
        register(Path("toy-rules.yaml"))

    @hookimpl
    def quantrecipe_register_models(self, register: Callable[[Path], None]) -> None:
        register(Path("toy-models.yaml"))

    @hookimpl
    def quantrecipe_register_report_sections(self, register: Callable[[str, Any], None]) -> None:
        register("Toy", lambda results: "toy")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    manager.plugin_manager.cache_clear()
    manager.backends.cache_clear()
    yield
    manager.plugin_manager.cache_clear()
    manager.backends.cache_clear()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretend that these objects are installed under the entry point group."""

    def pretend(**plugins: Any) -> None:
        entries = [SimpleNamespace(name=n, value=f"toy:{n}", load=lambda p=p: p) for n, p in plugins.items()]
        monkeypatch.setattr(manager, "entry_points", lambda group: entries)

    return pretend


def test_quantrecipe_register_backends(install: Callable[..., None]) -> None:
    install(toy=_Plugin())
    assert {"native", "toy"} <= set(manager.backends())


def test_quantrecipe_register_methods(install: Callable[..., None]) -> None:
    install(toy=_Plugin())
    assert manager.methods() == {"toy-method": len}


def test_quantrecipe_register_rules_and_models(install: Callable[..., None]) -> None:
    install(toy=_Plugin())
    assert manager.rule_packs() == [Path("toy-rules.yaml")]
    assert manager.model_files() == [Path("toy-models.yaml")]


def test_quantrecipe_register_report_sections(install: Callable[..., None]) -> None:
    install(toy=_Plugin())
    assert manager.report_sections()["Toy"]({}) == "toy"


def test_a_name_is_registered_once(install: Callable[..., None]) -> None:
    install(one=_Plugin(), two=_Plugin())
    with pytest.raises(QuantRecipeError, match="registered twice: 'toy'"):
        manager.backends()


def test_the_environment_restricts_loading(install: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    install(toy=_Plugin())
    monkeypatch.setenv("QUANTRECIPE_PLUGINS", "")
    assert "toy" not in manager.backends()


def test_a_named_plugin_that_is_missing_is_an_error(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(toy=_Plugin())
    monkeypatch.setenv("QUANTRECIPE_PLUGINS", "toyy")
    with pytest.raises(QuantRecipeError, match="not installed: 'toyy'; installed: toy; did you mean 'toy'"):
        manager.backends()


def test_a_plugin_that_does_not_import_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint(name="broken", value="no_such_module:plugin", group="quantrecipe")
    monkeypatch.setattr(manager, "entry_points", lambda group: [broken])
    with pytest.raises(QuantRecipeError, match=r"'broken' .* does not load; ModuleNotFoundError"):
        manager.backends()


def test_an_unknown_hook_is_an_error(install: Callable[..., None]) -> None:
    class Wrong:
        @hookimpl
        def quantrecipe_register_backend(self) -> None: ...

    install(wrong=Wrong())
    with pytest.raises(QuantRecipeError, match="implements no known hook"):
        manager.backends()


def test_an_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(BackendError, match=r"unknown backend: 'natve'; known: .*native.*did you mean 'native'"):
        manager.backend("natve")
