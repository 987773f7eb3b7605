from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from quantrecipe.errors import QuantRecipeError
from quantrecipe.schemes import (
    PRESETS,
    WEIGHT_BITS,
    QuantizationArgs,
    bits_per_weight,
    parse_scheme,
    scheme_name,
)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_reads_back_as_its_name(name: str) -> None:
    scheme = parse_scheme(name)
    assert scheme_name(scheme.weights, scheme.input_activations) == name


@given(
    st.sampled_from(WEIGHT_BITS),
    st.integers(4, 16),
    st.none() | st.integers(1, 4096),
    st.none() | st.integers(1, 4096),
    st.booleans(),
)
def test_the_grammar_is_its_own_inverse(w: int, a: int, g: int | None, ag: int | None, asym: bool) -> None:
    name = f"w{w}a{a}" + (f"-g{g}" if g else "") + (f"-ag{ag}" if ag and a < 16 else "") + ("-asym" if asym else "")
    scheme = parse_scheme(name)
    assert scheme_name(scheme.weights, scheme.input_activations) == name
    assert scheme.weights.symmetric is not asym


@pytest.mark.parametrize(
    "name", ["w4a17", "w7a16", "int4", "w4a16-g0", "w16a16", "w4a16-ag128", "", "w4a16-g128-sym"]
)
def test_unknown_schemes_are_refused(name: str) -> None:
    with pytest.raises(QuantRecipeError, match="unknown scheme"):
        parse_scheme(name)


def test_a_near_miss_names_the_preset() -> None:
    with pytest.raises(QuantRecipeError, match="did you mean 'w4a16-g128'"):
        parse_scheme("w4a16g128")


@pytest.mark.parametrize(
    ("scheme", "published"),
    [
        ("w4a16-g128", 4.125),  # 16-bit scale a group of 128
        ("w4a16-g128-asym", 4.15625),  # and a 4-bit zero point
        ("nf4-dq", 4.127),  # QLoRA (arXiv:2305.14314), section 3: 0.127 bits of constants after double quantization
        ("nf4", 4.5),  # ibid.: 0.5 bits before
        ("nvfp4", 4.5),  # an e4m3 scale for 16 values
        ("mxfp4", 4.25),  # an E8M0 scale for 32 values (OCP MX 1.0)
    ],
)
def test_bits_per_weight_count_scales_and_zero_points(scheme: str, published: float) -> None:
    assert bits_per_weight(parse_scheme(scheme).weights, 4096, 4096) == pytest.approx(published, abs=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_bits": 4, "strategy": "group"}, "needs group_size > 0"),
        ({"num_bits": 4, "strategy": "group", "group_size": 0}, "needs group_size > 0"),
        ({"num_bits": 4, "strategy": "channel", "group_size": 64}, "needs strategy 'group'"),
        ({"num_bits": 16}, "less than or equal to 15"),
        ({"num_bits": 6, "type": "float"}, "no float format"),
        ({"num_bits": 8, "type": "nf4"}, "has num_bits 4"),
        ({"num_bits": 8, "strategy": "block"}, "block_structure"),
    ],
)
def test_contradictions_name_the_remedy(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        QuantizationArgs.model_validate(fields)


def test_a_group_size_alone_means_strategy_group() -> None:
    assert QuantizationArgs.model_validate({"num_bits": 4, "group_size": 64}).strategy == "group"
