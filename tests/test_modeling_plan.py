"""A recipe laid over a model: every matrix is accounted for, nothing is skipped in silence."""

from __future__ import annotations

from typing import Any

import pytest

from quantrecipe.errors import RecipeError
from quantrecipe.modeling.plan import PlannedModule, make_plan, packed_bytes
from quantrecipe.modeling.skeleton import LinearInfo
from quantrecipe.recipe import Group, Recipe
from quantrecipe.schemes import parse_scheme

LAYERS = [
    LinearInfo("model.embed_tokens", "Embedding", 1000, 256, None, False, False),
    LinearInfo("model.layers.0.self_attn.q_proj", "Linear", 256, 256, 0, False, False),
    LinearInfo("model.layers.0.mlp.down_proj", "Linear", 256, 576, 0, False, False),
    LinearInfo("embed_out", "Linear", 1000, 256, None, True, False),
]


def _recipe(groups: dict[str, Any], ignore: list[str] | None = None) -> Recipe:
    quantization: dict[str, Any] = {"config_groups": groups}
    if ignore is not None:
        quantization["ignore"] = ignore
    return Recipe.model_validate({"model": {"id": "x"}, "quantization": quantization})


def test_a_later_group_wins_and_the_head_is_ignored_under_any_name() -> None:
    groups = {"main": "w4a16", "down": {"targets": ["re:.*down_proj"], "scheme": "w8a16"}}
    plan = make_plan(_recipe(groups), LAYERS)
    assert {m.name: m.group_name for m in plan.modules} == {
        "model.embed_tokens": None,
        "model.layers.0.self_attn.q_proj": "main",
        "model.layers.0.mlp.down_proj": "down",
        "embed_out": None,
    }


@pytest.mark.parametrize(
    ("groups", "ignore", "message"),
    [
        ({"main": {"targets": ["re:.*nothing"], "scheme": "w4a16"}}, None, "matches no module"),
        ({"main": {"targets": ["model.layers.0.self_attn.q_prj"], "scheme": "w4a16"}}, None, "did you mean"),
        ({"main": {"targets": ["re:.*q_proj"], "scheme": "w4a16"}}, None, "neither targeted nor ignored"),
        ({"main": {"targets": ["re:("], "scheme": "w4a16"}}, None, "not a regular expression"),
        ({"main": "w4a16"}, ["lm_head", "re:.*gate"], "ignore entry matches no module"),
        (
            {"main": "w4a16-g128"},
            None,
            r"does not divide the 576 inputs of .*down_proj: 128; nearest that do: 72, 96, 144",
        ),
        ({"main": "w4a16"}, ["re:.*"], "quantizes nothing"),
        ({"main": {"scheme": "w4a16", "method": "gptq"}}, [], "outside the decoder blocks"),
    ],
)
def test_what_cannot_be_meant_is_refused(groups: dict[str, Any], ignore: list[str] | None, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_plan(_recipe(groups, ignore), LAYERS)


def test_a_tied_head_cannot_be_quantized() -> None:
    tied = [*LAYERS[:3], LinearInfo("lm_head", "Linear", 1000, 256, None, True, True)]
    with pytest.raises(RecipeError, match="tied"):
        make_plan(_recipe({"main": "w4a16"}, []), tied)


def test_packed_bytes_of_a_known_layer() -> None:
    # 4096 x 4096 at 4 bits in groups of 128: 8 MiB of codes and 4096 * 32 scales of 2 bytes.
    assert packed_bytes(parse_scheme("w4a16-g128").weights, 4096, 4096) == 2**23 + 4096 * 32 * 2


def test_codes_beside_rounded_inputs_take_a_byte_each() -> None:
    """compressed-tensors' int-quantized layout, which w4a8 is written in, has int8 [N, K] whatever the width."""
    info = LinearInfo("model.layers.0.mlp.up_proj", "Linear", 64, 128, 0, False, False)
    packed, rounded = (
        PlannedModule(info, "main", Group.model_validate(scheme), None).packed_bytes
        for scheme in ("w4a16-g32", "w4a8-g32")
    )
    assert packed == 64 * 128 // 2 + 64 * 4 * 2 and rounded == 64 * 128 + 64 * 4 * 2
