from __future__ import annotations

from pathlib import Path

import pytest
import torch

from quantrecipe.errors import OutputError
from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.writer import ShardWriter, write_json


def _write(folder: Path, shard_bytes: int) -> None:
    folder.mkdir()
    writer = ShardWriter(folder, shard_bytes)
    for index in range(5):
        writer.add(f"t{index}", torch.full((10,), float(index)))
    writer.close()
    write_json(folder / "config.json", {})


@pytest.mark.parametrize(("shard_bytes", "shards"), [(10**6, 1), (80, 3), (1, 5)])
def test_shards_read_back_whole_and_the_same_bytes_twice(tmp_path: Path, shard_bytes: int, shards: int) -> None:
    _write(tmp_path / "a", shard_bytes)
    _write(tmp_path / "b", shard_bytes)
    model = ModelFolder.open(tmp_path / "a")
    assert len(model.files()) == shards
    assert all(torch.equal(model.tensor(f"t{i}"), torch.full((10,), float(i))) for i in range(5))
    assert model.hashes() == ModelFolder.open(tmp_path / "b").hashes()
    assert not list((tmp_path / "a").glob("part-*"))


def test_a_name_is_written_once(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, shard_bytes=1)
    writer.add("a", torch.zeros(3))
    with pytest.raises(OutputError, match="twice"):
        writer.add("a", torch.zeros(3))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "missing")
    writer.add("a", torch.zeros(3))
    with pytest.raises(OutputError, match="cannot write"):
        writer.close()
