"""What the examples and the README show is accepted as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quantrecipe.recipe_file import load_recipe, parse_recipe

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_recipes(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.output.report is not None
    assert Path(recipe.output.path) in Path(recipe.output.report).parents


def test_the_readmes_recipe_is_one() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^    version: 1\n(?:    .*\n)+", text, re.MULTILINE)
    assert block is not None
    recipe = parse_recipe("\n".join(line[4:] for line in block[0].splitlines()), name="README.md")
    assert set(recipe.quantization.config_groups) == {"main", "sensitive"}


def test_the_readmes_files_exist() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / target).exists(), target
