"""A slice of tools/fuzz_readers.py: damaged files are refused in one line, whichever reader meets them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from quantrecipe.errors import ModelError, QuantRecipeError
from quantrecipe.safe_json import parse_json, read_json
from tests.fuzzing.mutate import mutated, rng_for
from tests.fuzzing.targets import TARGETS, make_seeds

SLOW = ("results.json", "quantization config", "config.json")
INPUTS = 30


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    make_seeds(folder / "seeds")
    return folder


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "results.json"])
def test_only_our_own_error_comes_out(name: str, root: Path) -> None:
    target, refused = TARGETS[name], 0
    for number in range(INPUTS // 3 if name in SLOW else INPUTS):
        shutil.rmtree(root / "work", ignore_errors=True)
        rng = rng_for(name, 1, number)
        target.prepare(root / "seeds", root / "work", rng, lambda data, form, rng=rng: mutated(data, form, rng))  # type: ignore[misc]
        try:
            target.read(root / "work")
        except QuantRecipeError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "results.json"])
def test_good_files_are_read(name: str, root: Path) -> None:
    shutil.rmtree(root / "work", ignore_errors=True)
    TARGETS[name].prepare(root / "seeds", root / "work", rng_for(name, 0, 0), lambda data, _: data)
    if name == "provenance":
        with pytest.raises(ModelError, match="is missing"):
            TARGETS[name].read(root / "work")
    else:
        TARGETS[name].read(root / "work")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"a": ' + b"1" * 21 + b"}", "21 digits"),
        (b'{"a": NaN}', "NaN"),
        (b"[" * 70 + b"]" * 70, "nested deeper than 60"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper than 60"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": "\\ud800"}', "not UTF-8"),
        (b"{", "Expecting"),
    ],
)
def test_json_from_strangers(text: bytes, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        parse_json(text, "x.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b'{"a": Infinity}', b'{"a": "\\ud83d\\ude00"}', b"[" * 60 + b"]" * 60])
def test_json_that_is_odd_but_good(text: bytes) -> None:
    parse_json(text, "x.json")


def test_a_file_too_large_is_not_taken_in(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps({"a": "b" * 1000}))
    assert read_json(tmp_path / "x.json")
    with pytest.raises(ModelError, match="too large"):
        read_json(tmp_path / "x.json", max_bytes=100)
