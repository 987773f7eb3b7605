"""Groups and patterns of a mix: laid over the model they give each layer what was chosen, and no other anything."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantrecipe.mixed.groups import groups_of
from quantrecipe.mixed.options import KEEP, Option
from quantrecipe.mixed.patterns import patterns
from quantrecipe.mixed.units import units_of
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import make_plan, matches
from quantrecipe.modeling.skeleton import LinearInfo, Skeleton
from quantrecipe.recipe import Recipe
from tests.families import make_model

OPTIONS = [Option("w4a16-g32", "rtn"), Option("w8a16", "rtn"), Option("w3a16", "gptq"), Option("w8a16", "gptq"), KEEP]


@cache
def _linears(family: str) -> tuple[LinearInfo, ...]:
    with TemporaryDirectory() as folder:
        return tuple(Skeleton(ModelFolder.open(make_model(family, Path(folder)))).linears())


def _grid(blocks: int) -> list[LinearInfo]:
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")
    return [
        LinearInfo(f"model.layers.{block}.{name}", "Linear", 64, 64, block, False, False)
        for block in range(blocks)
        for name in names
    ]


@pytest.mark.parametrize("family", ["llama", "llama-tied", "mixtral", "deepseek-v3", "gpt2", "opt-350m", "bloom"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_plan_is_the_choice(family: str, data: st.DataObject) -> None:
    linears = _linears(family)
    units = units_of(linears)
    chosen = {
        unit.name: data.draw(st.sampled_from(OPTIONS if unit.in_blocks else [OPTIONS[1], KEEP])) for unit in units
    }
    if all(one.keeps for one in chosen.values()):
        chosen[units[0].name] = OPTIONS[0]
    groups, ignore = groups_of(linears, units, chosen)
    quantization = {"config_groups": groups, "ignore": ignore}
    plan = make_plan(Recipe.model_validate({"model": {"id": "x"}, "quantization": quantization}), linears)
    found = {
        one.name: KEEP if one.group is None else Option(one.group.scheme.name, one.group.method.name)
        for one in plan.modules
    }
    wanted = {layer: chosen[unit.name] for unit in units for layer in unit.layers}
    assert found == {info.name: wanted.get(info.name, KEEP) for info in linears}
    assert len(groups) == len({one for one in chosen.values() if not one.keeps})


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_patterns_mean_what_is_wanted_and_nothing_that_is_not(data: st.DataObject) -> None:
    linears = _grid(12)
    names = [one.name for one in linears]
    kinds = data.draw(st.lists(st.sampled_from("wfo"), min_size=len(names), max_size=len(names)))
    wanted = {name for name, kind in zip(names, kinds, strict=True) if kind == "w"}
    free = {name for name, kind in zip(names, kinds, strict=True) if kind == "f"}
    found = patterns(linears, wanted, free)
    meant = {one.name for one in linears if any(matches(entry, one) for entry in found)}
    assert wanted <= meant <= wanted | free
    assert len(found) <= 5


def test_layers_that_share_their_blocks_share_a_pattern() -> None:
    linears = _grid(12)
    wanted = [one.name for one in linears if one.block in (0, 1, 11) and one.name.endswith(("down_proj", "o_proj"))]
    assert patterns(linears, wanted) == [r"re:model\.layers\.(0|1|11)\.(mlp\.down_proj|self_attn\.o_proj)$"]


def test_a_kind_of_layer_in_all_blocks_is_one_pattern_also_where_a_later_group_takes_some_back() -> None:
    linears = _grid(12)
    downs = [one.name for one in linears if one.name.endswith("down_proj")]
    assert patterns(linears, downs) == [r"re:model\.layers\.\d+\.mlp\.down_proj$"]
    assert patterns(linears, downs[2:], downs[:2]) == [r"re:model\.layers\.\d+\.mlp\.down_proj$"]
