"""The journal believes what it wrote and nothing else; files are whole or not there."""

from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from quantrecipe.modeling import tensor_file
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.identity import differences, identity
from quantrecipe.modeling.journal import FILE, Journal, read_lines
from quantrecipe.recipe import Recipe
from tests import families


def _journal(folder: Path, count: int) -> bytes:
    folder.mkdir(exist_ok=True)
    journal = Journal(folder)
    for index in range(count):
        journal.add("block", place=index, text="tab\t newline\n ü", value=0.1)
    journal.close()
    return (folder / FILE).read_bytes()


def test_lines_come_back_and_more_can_be_added(tmp_path: Path) -> None:
    _journal(tmp_path, 2)
    journal = Journal(tmp_path)
    journal.add("states", place=7)
    journal.close()
    assert [line["place"] for line in read_lines(tmp_path)] == [0, 1, 7]
    assert read_lines(tmp_path)[0] == {"kind": "block", "place": 0, "text": "tab\t newline\n ü", "value": 0.1}


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_whatever_happens_to_the_file_only_a_true_beginning_is_believed(
    tmp_path_factory: object, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("journal")  # type: ignore[attr-defined]
    whole = _journal(folder, 4)
    cut = data.draw(st.integers(0, len(whole)))
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytes([*whole[:place], whole[place] ^ data.draw(st.integers(1, 255)), *whole[place + 1 :]])
    truth = [{"kind": "block", "place": i, "text": "tab\t newline\n ü", "value": 0.1} for i in range(4)]
    for harmed in (whole[:cut], flipped, whole[:cut] + b"\0" * 100):
        (folder / FILE).write_bytes(harmed)
        found = read_lines(folder)
        assert found == truth[: len(found)]
        assert len(found) >= min(harmed[: place if harmed == flipped else cut].count(b"\n"), 4)
        journal = Journal(folder)  # drops what is damaged, and goes on behind it
        journal.add("next")
        journal.close()
        assert read_lines(folder) == [*found, {"kind": "next"}]
    (folder / FILE).unlink()


def test_tensor_files_are_safetensors_with_data_at_multiples_of_64(tmp_path: Path) -> None:
    tensors = {
        "b": torch.randn(3, 5), "a": torch.arange(7, dtype=torch.int8), "c": torch.tensor(2.5, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 4), "wide": torch.randn(4, 6).t(), "f8": torch.ones(3).to(torch.float8_e4m3fn),
    }  # fmt: skip
    path = tmp_path / "x.safetensors"
    pieces = [tensor_file.of_tensor(*item) for item in tensors.items()]
    digest = tensor_file.write_tensor_file(path, pieces)
    found = load_file(path)
    assert all(torch.equal(found[name].float(), tensors[name].float()) for name in tensors)
    assert all(found[name].dtype == tensors[name].dtype for name in tensors)
    assert min(stored.start for stored in tensor_file.read_header(path).values()) % 64 == 0
    copied = [tensor_file.of_stored(name, path, name) for name in reversed(tensors)]
    again = tmp_path / "y.safetensors"
    tensor_file.write_tensor_file(again, copied)
    assert again.read_bytes() == path.read_bytes()
    import hashlib

    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_identity_names_what_differs(tmp_path: Path) -> None:
    model = families.make_model("llama", tmp_path / "model")
    recipe = Recipe.model_validate({"model": {"id": "x"}, "quantization": {"config_groups": {"main": "w4a16-g32"}}})
    folder, tokens = ModelFolder.open(model), {"calibration tokens": torch.arange(8)}
    first = identity(recipe, folder, "cpu", tokens)
    assert differences(first, identity(recipe, folder, "cpu", tokens)) == []
    other = recipe.model_copy(update={"calibration": recipe.calibration.model_copy(update={"seed": 3})})
    assert differences(first, identity(other, folder, "cpu", tokens)) == ["recipe, calibration"]
    assert differences(first, identity(recipe, folder, "cpu", {"calibration tokens": None})) == ["calibration tokens"]
    weights = model / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert differences(first, identity(recipe, folder, "cpu", tokens)) == ["model file model.safetensors"]
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert any("threads (was" in text for text in differences(first, identity(recipe, folder, "cpu", tokens)))
    finally:
        torch.set_num_threads(before)
