"""The one YAML reader: plain data with line numbers, and nothing that is slow, large, or more than data."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from quantrecipe import safe_yaml
from quantrecipe.errors import QuantRecipeError
from quantrecipe.recipe_text import recipe_yaml
from quantrecipe.safe_yaml import MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_NUMBER, parse, read_text


def load(text: str) -> Any:
    return parse(text, "f.yaml", QuantRecipeError).data


LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"
BOMBS = [
    (LAUGHS, "f.yaml:2: .*aliases"),
    ("a: &a\n  b: *a\n", "f.yaml:2: .*aliases"),
    ("base: &b {x: 1}\nmore:\n  <<: *b\n", "f.yaml:3: .*aliases"),
    ("[" * 100_000, "nested deeper"),
    ("{a: " * 10_000, "nested deeper"),
    ("- " * 10_000 + "x", "nested deeper"),
    ("a:\n  " + "? " * 200 + "x", "nested deeper"),
    ("[" + "1," * (MAX_NODES + 1) + "]", f"more than {MAX_NODES} parts"),
    ("a: 1\n" * 2, "f.yaml:2: .*twice"),
    ("a: " + "9" * (MAX_NUMBER + 1), "f.yaml:1: .*number of more than"),
    ("a: 0x" + "f" * 100_000, "number of more than"),
    ("a: " + "1:" * 100 + "1", "number of more than"),
    ("a: !!python/object/apply:os.system [echo]", "tag"),
    ("a: !!binary aGVsbG8=", "tag"),
    ("a: !!set {x, y}", "tag"),
    ("a: !!omap [x: 1]", "tag"),
    ("a: !!int word", "not a int"),
    ("a: !!bool word", "not a bool"),
    ("{[1]: 2}", "plain word"),
    ("? {a: 1}\n: 2", "plain word"),
    ("a: \x00", "not valid"),
    ("a: 1\n---\nb: 2", "not valid"),
]


@pytest.mark.parametrize(("text", "words"), BOMBS, ids=[text[:20] for text, _ in BOMBS])
def test_bombs_are_one_line_and_fast(text: str, words: str) -> None:
    start = time.process_time()
    with pytest.raises(QuantRecipeError, match=words) as caught:
        load(text)
    assert "\n" not in caught.value.line() and len(caught.value.line()) < 400
    assert time.process_time() - start < 3


def test_a_date_is_text_and_a_merge_key_is_a_key() -> None:
    assert load("when: 2026-11-24\nbad: 2026-99-99") == {"when": "2026-11-24", "bad": "2026-99-99"}
    assert load("<<: {a: 1}") == {"<<": {"a": 1}}
    assert load("") is None and load("# nothing") is None


def test_limits_are_not_too_tight() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    assert load(str(deep)) == deep
    assert load("9" * MAX_NUMBER) == int("9" * MAX_NUMBER)


def test_lines_are_those_of_the_keys() -> None:
    document = parse("a:\n  b: 1\n  c:\n    - x\n    - d: 2\n", "f", QuantRecipeError)
    assert document.line(("a", "b")) == 2 and document.line(("a", "c")) == 3
    assert document.line(("a", "c", 1, "d")) == 5
    assert document.line(("a", "c", 1, "nothing", 7)) == 5 and document.line(("nowhere",)) == 1


def test_files(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"#" * (MAX_BYTES + 1))
    (tmp_path / "latin").write_bytes(b"\xff")
    for name, words in (("large", "too large"), ("latin", "UTF-8"), ("none", "No such file"), ("a\0b", "not a path")):
        with pytest.raises(QuantRecipeError, match=words):
            read_text(tmp_path / name, "thing", QuantRecipeError)
    with pytest.raises(QuantRecipeError, match="too large"):
        read_text("/dev/zero", "thing", QuantRecipeError)


PLAIN = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(max_size=12)
DATA = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(DATA)
def test_reads_what_pyyaml_reads(data: Any) -> None:
    text = yaml.safe_dump(data, allow_unicode=True)
    assert load(text) == yaml.safe_load(text)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=8), DATA, min_size=1, max_size=4))
def test_our_writer_and_reader_agree_and_so_does_pyyaml(data: dict[str, Any]) -> None:
    text = recipe_yaml(data)
    assert load(text) == data
    assert yaml.safe_load(text) == data


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("[]{}:,-?&*!|>'\"#%@\n\t ab1.e~=<0x")), max_size=60))
def test_any_text_is_data_or_one_clear_line(text: str) -> None:
    try:
        data = load(text)
    except QuantRecipeError as error:
        assert "\n" not in error.line()
    else:
        assert data is None or isinstance(data, dict | list | str | bool | int | float) or math.isnan(data)


def test_nothing_else_reads_yaml() -> None:
    package = Path(safe_yaml.__file__).parent
    readers = [path.name for path in package.rglob("*.py") if "import yaml" in path.read_text(encoding="utf-8")]
    assert readers == ["safe_yaml.py"]
