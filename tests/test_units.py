from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantrecipe.errors import QuantRecipeError
from quantrecipe.units import format_both, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("80GB", 80_000_000_000),
        ("80 GiB", 80 * 2**30),
        ("7.5gb", 7_500_000_000),
        ("512MiB", 512 * 2**20),
        ("1tb", 10**12),
        ("123456", 123456),
        (123456, 123456),
        ("24g", 24_000_000_000),
    ],
)
def test_sizes_are_read_as_written(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["80 gigs", "", "GB", "-3GB", "0GB", "1e3GB", "80GBB", "nan", "80,5GB", True, "9" * 40]
)
def test_what_is_no_size_is_refused_with_the_value_and_a_remedy(text: str) -> None:
    with pytest.raises(QuantRecipeError) as caught:
        parse_bytes(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=30))
def test_no_text_makes_another_error(text: str) -> None:
    with suppress(QuantRecipeError):
        assert parse_bytes(text) > 0


@given(st.integers(1, 10**15))
def test_a_formatted_size_reads_back_within_its_digits(size: int) -> None:
    assert parse_bytes(format_bytes(size).replace(" ", "")) == pytest.approx(size, rel=0.006)


def test_both_units_stand_side_by_side() -> None:
    assert format_both(80e9) == "80.0 GB (74.5 GiB)"
    assert format_both(999) == "999 B (999 B)"
