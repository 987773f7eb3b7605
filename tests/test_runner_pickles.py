"""--allow-pickle: weights that are pickles, and what else a pickle may hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from runner_models import make_workplace, qrun, write_recipe
from safetensors.torch import load_file


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    root = make_workplace(tmp_path)
    weights = root / "model" / "model.safetensors"
    torch.save(load_file(weights), root / "model" / "pytorch_model.bin")
    weights.rename(root / "kept.safetensors")
    return root


def test_pickles_need_the_flag_and_give_the_same_checkpoint(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(workplace)
    assert qrun(recipe) == 2
    assert "--allow-pickle" in capsys.readouterr().err
    assert qrun(recipe, "--allow-pickle", "--output", workplace / "pickled") == 0
    assert not list(workplace.glob(".pickled*model"))
    (workplace / "kept.safetensors").rename(workplace / "model" / "model.safetensors")
    assert qrun(recipe, "--output", workplace / "plain") == 0
    first, second = (load_file(workplace / name / "model.safetensors") for name in ("pickled", "plain"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("pwned"),)


@pytest.mark.parametrize("content", [pickle.dumps({"w": Evil()}), b"no pickle", b"", pickle.dumps([1, 2])])
def test_other_pickles_run_nothing(
    content: bytes, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    (workplace / "model" / "pytorch_model.bin").write_bytes(content)
    assert qrun(write_recipe(workplace), "--allow-pickle") == 2
    assert "pickle" in capsys.readouterr().err
    assert not (workplace / "pwned").exists() and not (workplace / "out").exists()


def test_a_torch_file_of_objects_is_refused(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"w": Evil()}, workplace / "model" / "pytorch_model.bin")
    assert qrun(write_recipe(workplace), "--allow-pickle") == 2
    assert "more than tensors" in capsys.readouterr().err
    assert not Path("pwned").exists()
