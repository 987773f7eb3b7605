"""Units and options: what shares a format, and which formats a unit may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantrecipe.errors import QuantRecipeError
from quantrecipe.mixed.options import KEEP, Option, candidates, options_of, parse_option
from quantrecipe.mixed.units import EXPERTS, Unit, units_of
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import LinearInfo, Skeleton
from tests.families import make_model


def _linears(family: str, folder: Path) -> list[LinearInfo]:
    return Skeleton(ModelFolder.open(make_model(family, folder))).linears()


def _unit(columns: int, block: int | None = 0) -> Unit:
    return Unit("layer", (LinearInfo("layer", "Linear", 64, columns, block, block is None, False),))


def test_what_an_engine_fuses_is_one_unit_and_an_untied_head_is_one(tmp_path: Path) -> None:
    units = units_of(_linears("llama", tmp_path))
    names = [unit.name for unit in units]
    assert names[:4] == [
        "model.layers.0.self_attn.q_proj+k_proj+v_proj",
        "model.layers.0.self_attn.o_proj",
        "model.layers.0.mlp.gate_proj+up_proj",
        "model.layers.0.mlp.down_proj",
    ]
    assert names[-1] == "lm_head" and not units[-1].in_blocks
    assert len(units) == 3 * 4 + 1
    assert units[0].weights == (64 + 32 + 32) * 64 and units[0].block == 0


def test_a_tied_head_is_none_and_an_engine_that_fuses_nothing_gets_single_layers(tmp_path: Path) -> None:
    units = units_of(_linears("llama-tied", tmp_path), fuses=False)
    assert len(units) == 3 * 7 and all(len(unit.parts) == 1 for unit in units)


@pytest.mark.parametrize("family", ["mixtral", "qwen2-moe", "deepseek-v3", "gpt2", "bloom", "phi3", "opt-350m"])
def test_every_layer_of_the_blocks_is_in_exactly_one_unit(family: str, tmp_path: Path) -> None:
    linears = _linears(family, tmp_path)
    layers = [layer for unit in units_of(linears) for layer in unit.layers]
    wanted = {one.name for one in linears if one.block is not None and not one.is_router and one.kind != "Other"}
    assert len(layers) == len(set(layers)) and wanted <= set(layers)
    assert all(one.is_head for one in linears if one.name in set(layers) - wanted)


def test_the_experts_of_a_block_are_one_unit_or_those_of_all_blocks(tmp_path: Path) -> None:
    linears = _linears("mixtral", tmp_path)
    experts = {unit.name: unit for unit in units_of(linears) if unit.parts[0].is_expert}
    assert list(experts) == [f"model.layers.{index}.mlp.experts" for index in range(3)]
    assert all(len(unit.parts) == 4 * 3 for unit in experts.values())
    (alike,) = [one for one in units_of(linears, experts_alike=True) if one.parts[0].is_expert]
    assert alike.name == EXPERTS and len(alike.parts) == 3 * 4 * 3 and alike.block is None and alike.in_blocks


def test_groups_divide_the_inputs_and_leave_more_than_one() -> None:
    sizes = {one.facts.group for one in options_of(_unit(192), candidates())}
    assert sizes == {0, 64, 32}
    assert {one.facts.group for one in options_of(_unit(64), candidates())} == {0, 32}


def test_options_outside_the_blocks_are_rounded_to_nearest() -> None:
    methods = {one.method for one in options_of(_unit(256, block=None), candidates()) if not one.keeps}
    assert methods == {"rtn"}


def test_faults_take_options_out_and_the_last_of_them_is_named() -> None:
    few = options_of(_unit(256), candidates(), [lambda one: None if one.facts.bits == 8 else "too few bits"])
    assert few == (Option("w8a16", "gptq"),)
    with pytest.raises(QuantRecipeError, match=r"layer.*never"):
        options_of(_unit(256), candidates(), [lambda one: "never"])


def test_an_option_is_read_back_from_its_name() -> None:
    assert [parse_option(str(one)) for one in candidates()] == list(candidates())
    assert KEEP in candidates() and KEEP.keeps
