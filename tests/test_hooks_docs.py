"""The examples on the pages of hooks, run as a plugin and its user would."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from quantrecipe.catalog import lookup
from quantrecipe.plugins import hookspecs, manager

PAGES = sorted(path for path in (Path(__file__).parents[1] / "docs" / "hooks").glob("*.md") if path.stem != "index")


def blocks(page: Path) -> dict[str, str]:
    """Python blocks of a page by their second word: the plugin, and what checks it."""
    found = re.findall(r"```python ?(\w*)\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    return {kind or "plugin": code for kind, code in found}


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    caches = [manager.plugin_manager, manager.backends, lookup._plugin_entries]
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_an_example_works(page: Path) -> None:
    code = blocks(page)
    plugin = ModuleType(f"plugin_{page.stem}")
    exec(compile(code["plugin"], str(page), "exec"), plugin.__dict__)
    manager.plugin_manager().register(plugin, name=page.stem)
    exec(compile(code["check"], str(page), "exec"), {})


def test_there_is_a_page_for_every_hook() -> None:
    hooks = {name.removeprefix("quantrecipe_register_") for name in dir(hookspecs) if name.startswith("quantrecipe_")}
    assert {page.stem for page in PAGES} == hooks
