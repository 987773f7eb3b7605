"""Bytes of a mix: what is promised is what the native backend writes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from quantrecipe.errors import QuantRecipeError
from quantrecipe.mixed.groups import groups_of
from quantrecipe.mixed.options import Option, candidates, options_of
from quantrecipe.mixed.sizes import Sizes
from quantrecipe.mixed.units import units_of
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.scheme_facts import WEIGHT_BITS, scheme_facts
from quantrecipe.storage import compressed_tensors, packed_tensors
from tests.families import make_model
from tests.native_jobs import quantize


@pytest.mark.parametrize("bits", WEIGHT_BITS)
@pytest.mark.parametrize("rest", ["", "-g32", "-g32-asym", "-asym"])
def test_the_list_of_tensors_is_what_the_formula_counts(bits: int, rest: str) -> None:
    scheme = scheme_facts(f"w{bits}a16{rest}")
    for rows, columns in ((96, 64), (40, 160), (7, 96)):
        listed = sum(one.nbytes() for one in packed_tensors(scheme, rows, columns))
        assert listed == compressed_tensors(scheme, rows, columns).total


@pytest.mark.parametrize(
    ("family", "form"),
    [
        ("llama", "compressed-tensors"),
        ("llama-tied", "compressed-tensors"),
        ("mixtral", "compressed-tensors"),
        ("gpt2", "quantrecipe"),
    ],
)
def test_the_files_are_as_long_as_they_are_said_to_be(family: str, form: str, tmp_path: Path) -> None:
    folder = make_model(family, tmp_path / "model", torch.bfloat16)
    skeleton = Skeleton(ModelFolder.open(folder))
    units = units_of(skeleton.linears())
    sizes = Sizes(skeleton, units, form)
    chooser = random.Random(family)
    tried = candidates("rtn")
    chosen = {unit.name: chooser.choice(options_of(unit, tried)) for unit in units}
    groups, ignore = groups_of(skeleton.linears(), units, chosen)
    quantize(folder, tmp_path / "out", groups, form, ignore=ignore)
    written = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert sizes.file_bytes(chosen) == written
    told = sizes.rest_bytes(True) + sum(sizes.option_bytes(unit, chosen[unit.name], True) for unit in units)
    assert written <= told <= written * 1.1
    data = sizes.rest_bytes(False) + sum(sizes.option_bytes(unit, chosen[unit.name], False) for unit in units)
    assert data == sizes.data_bytes(chosen)


def test_the_scales_of_a_cache_are_counted(tmp_path: Path) -> None:
    folder = make_model("llama", tmp_path / "model", torch.bfloat16)
    skeleton = Skeleton(ModelFolder.open(folder))
    units = units_of(skeleton.linears())
    chosen = {unit.name: Option("w8a16", "rtn") for unit in units}
    groups, ignore = groups_of(skeleton.linears(), units, chosen)
    cache = {"num_bits": 8, "type": "float", "strategy": "tensor"}
    quantize(folder, tmp_path / "out", groups, ignore=ignore, kv_cache=cache)
    written = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors"))
    assert Sizes(skeleton, units, "compressed-tensors").file_bytes(chosen, cache_scales=True) == written


def test_a_format_of_one_scheme_is_refused(tmp_path: Path) -> None:
    skeleton = Skeleton(ModelFolder.open(make_model("llama", tmp_path)))
    with pytest.raises(QuantRecipeError, match="one scheme for all layers"):
        Sizes(skeleton, (), "gptq")
