"""A damaged, incomplete or hostile model folder is one clear line, before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from quantrecipe.errors import ModelError
from quantrecipe.modeling.folder import INDEX, SINGLE, ModelFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, tmp_path / SINGLE)
    return tmp_path


def _sharded(folder: Path, weight_map: object) -> Path:
    (folder / SINGLE).rename(folder / "one.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_tensors_are_listed_and_read(folder: Path) -> None:
    model = ModelFolder.open(folder)
    assert model.names == ["a", "b"]
    assert model.info("a").shape == (2, 3)
    assert model.info("b").dtype == torch.bfloat16
    assert model.nbytes == 6 * 4 + 4 * 2
    assert torch.equal(model.tensor("a"), torch.arange(6.0).reshape(2, 3))
    assert set(model.hashes()) == {"config.json", SINGLE}


def test_shards_are_found_by_the_index(folder: Path) -> None:
    model = ModelFolder.open(_sharded(folder, {"a": "one.safetensors", "b": "one.safetensors"}))
    assert model.files() == ["one.safetensors"]


@pytest.mark.parametrize("cut", [3, 7, 40, -1])
def test_a_truncated_shard_is_named(folder: Path, cut: int) -> None:
    data = (folder / SINGLE).read_bytes()
    (folder / SINGLE).write_bytes(data[:cut])
    with pytest.raises(ModelError, match=r"truncated or damaged: 'model\.safetensors'"):
        ModelFolder.open(folder)


@pytest.mark.parametrize("name", ["../one.safetensors", "/etc/passwd", "sub/one.safetensors", "..", "", 3])
def test_an_index_cannot_point_outside(folder: Path, name: object) -> None:
    with pytest.raises(ModelError, match="outside the model folder"):
        ModelFolder.open(_sharded(folder, {"a": name}))


def test_a_missing_shard_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"shard missing: 'two\.safetensors'"):
        ModelFolder.open(_sharded(folder, {"a": "one.safetensors", "b": "two.safetensors"}))


def test_a_tensor_that_its_shard_lacks_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match="missing from its shard: 'c'"):
        ModelFolder.open(_sharded(folder, {"a": "one.safetensors", "c": "one.safetensors"}))


@pytest.mark.parametrize("text", ["{", "[]", "", "nul"])
def test_a_broken_config_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        ModelFolder.open(folder)


def test_a_config_without_weights_is_refused(folder: Path) -> None:
    (folder / SINGLE).unlink()
    with pytest.raises(ModelError, match="a config but no weights"):
        ModelFolder.open(folder)


def test_pickled_weights_are_refused_with_the_remedy(folder: Path) -> None:
    (folder / SINGLE).unlink()
    (folder / "pytest_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="convert them to safetensors"):
        ModelFolder.open(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        ModelFolder.open(tmp_path / "nowhere")


def test_what_one_reader_changes_no_other_reader_sees(folder: Path) -> None:
    opened = ModelFolder.open(folder)
    opened.tensor("a").fill_(7)
    assert torch.equal(opened.tensor("a"), torch.arange(6.0).reshape(2, 3))
    assert opened.mapped("a").data_ptr() == opened.mapped("a").data_ptr()
