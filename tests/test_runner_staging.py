"""The output is filled elsewhere and put in its place whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantrecipe.errors import OutputError
from quantrecipe.runner import staging as module
from quantrecipe.runner.staging import staging


def _fill(folder: Path, word: str) -> None:
    (folder / "config.json").write_text(word)


def _left(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_placed_in_one_step(tmp_path: Path) -> None:
    with staging(tmp_path / "out") as stage:
        _fill(stage.folder, "new")
        assert not (tmp_path / "out").exists()
        stage.place()
    assert _left(tmp_path) == ["out"]
    assert (tmp_path / "out" / "config.json").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_where_it_fails(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), staging(tmp_path / "out") as stage:
        _fill(stage.folder, "half")
        raise error
    assert _left(tmp_path) == []


def test_a_checkpoint_is_kept_unless_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    _fill(out, "old")
    with pytest.raises(OutputError, match="--overwrite"), staging(out):
        pass
    with pytest.raises(RuntimeError), staging(out, overwrite=True) as stage:
        _fill(stage.folder, "half")
        raise RuntimeError
    assert (out / "config.json").read_text() == "old"
    with staging(out, overwrite=True) as stage:
        _fill(stage.folder, "new")
        stage.place()
    assert (out / "config.json").read_text() == "new"
    assert _left(tmp_path) == ["out"]


def test_without_exchange_two_renames_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        """A C library without renameat2."""

    monkeypatch.setattr(module.ctypes, "CDLL", lambda *_, **__: Old())
    test_a_checkpoint_is_kept_unless_overwritten(tmp_path)


def test_other_peoples_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="no checkpoint"), staging(tmp_path, overwrite=True):
        pass


def test_the_models_own_folder_is_never_replaced(tmp_path: Path) -> None:
    model = tmp_path / "models" / "a"
    model.mkdir(parents=True)
    _fill(model, "original")
    for output in (model, model.parent):
        with pytest.raises(OutputError, match="model's own folder"), staging(output, overwrite=True, keep=model):
            pass


def test_two_runs_cannot_share_an_output(tmp_path: Path) -> None:
    with staging(tmp_path / "out"), pytest.raises(OutputError, match="another run"), staging(tmp_path / "out"):
        pass
    with staging(tmp_path / "out") as stage:
        _fill(stage.folder, "new")
        stage.place()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="is a file"), staging(tmp_path / "out"):
        pass
    with pytest.raises(OutputError), staging(tmp_path / "out" / "below"):
        pass
