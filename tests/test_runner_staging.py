"""The output is filled elsewhere and put in its place whole, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from quantrecipe.errors import BackendError, DamageError, ModelError, OutputError
from quantrecipe.modeling import files
from quantrecipe.modeling.journal import Journal
from quantrecipe.runner.staging import remove_scratch, staging


def _fill(folder: Path, word: str) -> None:
    (folder / "config.json").write_text(word)


def _left(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_placed_in_one_step(tmp_path: Path) -> None:
    with staging(tmp_path / "out") as stage:
        stage.begin({})
        _fill(stage.folder, "new")
        assert not (tmp_path / "out").exists()
        stage.place()
    assert _left(tmp_path) == ["out"]
    assert (tmp_path / "out" / "config.json").read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_where_it_fails(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), staging(tmp_path / "out") as stage:
        stage.begin({})
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
        stage.begin({})
        _fill(stage.folder, "half")
        raise RuntimeError
    assert (out / "config.json").read_text() == "old"
    with staging(out, overwrite=True) as stage:
        stage.begin({})
        _fill(stage.folder, "new")
        stage.place()
    assert (out / "config.json").read_text() == "new"
    assert _left(tmp_path) == ["out"]


def test_without_exchange_two_renames_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        """A C library without renameat2."""

    monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: Old())
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
        stage.begin({})
        _fill(stage.folder, "new")
        stage.place()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="is a file"), staging(tmp_path / "out"):
        pass
    with pytest.raises(OutputError), staging(tmp_path / "out" / "below"):
        pass


def _stop(output: Path, identity: dict[str, str], blocks: int) -> None:
    """A run that is stopped behind so many blocks."""
    with pytest.raises(KeyboardInterrupt) as caught, staging(output) as stage:
        stage.begin(identity)
        journal = Journal(stage.scratch)
        for place in range(blocks):
            journal.add("block", place=place)
        journal.close()
        raise KeyboardInterrupt
    assert caught.value.__notes__ == [
        f"the work done so far (parts: {blocks}) is kept; the same command goes on from there"
    ]


def test_what_is_finished_stays_and_the_same_run_goes_on(tmp_path: Path) -> None:
    _stop(tmp_path / "out", {"threads": "1"}, 2)
    assert _left(tmp_path) == [".out.quantrecipe-part"]
    with staging(tmp_path / "out") as stage:
        stage.begin({"threads": "1"})
        assert stage.parts == 2
        _fill(stage.folder, "new")
        stage.place()
    assert _left(tmp_path) == ["out"]


def test_another_run_is_refused_by_name_and_starts_anew_when_told(tmp_path: Path) -> None:
    _stop(tmp_path / "out", {"threads": "1", "recipe, gates": "a" * 64}, 1)
    other = {"threads": "2", "recipe, gates": "b" * 64}
    with (
        pytest.raises(OutputError, match=r"recipe, gates, threads \(was 1, is 2\).*--overwrite"),
        staging(tmp_path / "out") as stage,
    ):
        stage.begin(other)
    assert _left(tmp_path) == [".out.quantrecipe-part"]
    with pytest.raises(RuntimeError), staging(tmp_path / "out") as stage:
        stage.begin(other, overwrite=True)
        assert stage.parts == 0
        raise RuntimeError
    assert _left(tmp_path) == []


@pytest.mark.parametrize("error", [ModelError("x"), BackendError("x"), DamageError("x")])
def test_what_cannot_be_mended_by_going_on_is_removed(error: Exception, tmp_path: Path) -> None:
    _stop(tmp_path / "out", {}, 1)
    with pytest.raises(type(error)), staging(tmp_path / "out"):
        raise error  # before its journal is this run's: whatever a stopped run has left stays
    assert _left(tmp_path) == [".out.quantrecipe-part"]
    with pytest.raises(type(error)), staging(tmp_path / "out") as stage:
        stage.begin({})
        raise error
    assert _left(tmp_path) == []


def _stop_behind_the_last_step(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("quantrecipe.runner.staging.remove_scratch", lambda path: None)
        with staging(output) as stage:
            stage.begin({"threads": "1"})
            _fill(stage.folder, "new")
            (stage.folder / "provenance.json").write_text("hashes")
            stage.place()
    assert ".out.quantrecipe-part" in _left(output.parent)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_stopped_behind_its_last_step_had_ended(
    overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stop_behind_the_last_step(tmp_path / "out", monkeypatch)
    with staging(tmp_path / "out", overwrite) as stage:
        stage.begin({"threads": "1"}, overwrite)
        assert stage.ended
        remove_scratch(stage.scratch)
    assert _left(tmp_path) == ["out"]


def test_another_run_that_had_ended_is_a_checkpoint_like_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stop_behind_the_last_step(tmp_path / "out", monkeypatch)
    with pytest.raises(OutputError, match="already holds a checkpoint"), staging(tmp_path / "out") as stage:
        stage.begin({"threads": "2"})
    assert _left(tmp_path) == ["out"]
    shutil.rmtree(tmp_path / "out")
    _stop_behind_the_last_step(tmp_path / "out", monkeypatch)
    with staging(tmp_path / "out", overwrite=True) as stage:
        stage.begin({"threads": "2"}, overwrite=True)
        assert not stage.ended
        _fill(stage.folder, "newer")
        stage.place()
    assert _left(tmp_path) == ["out"]
    assert (tmp_path / "out" / "config.json").read_text() == "newer"


def test_the_journal_goes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stop_behind_the_last_step(tmp_path / "out", monkeypatch)
    scratch = tmp_path / ".out.quantrecipe-part"
    (scratch / "block-00000.safetensors").write_bytes(b"x")
    seen = []
    monkeypatch.setattr("quantrecipe.runner.staging.remove", lambda path: seen.append(path.name))
    remove_scratch(scratch)
    assert seen == ["block-00000.safetensors", ".out.quantrecipe-part"]


def test_a_scratch_folder_without_a_line_is_swept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    _fill(tmp_path / "out", "old")
    (tmp_path / ".out.quantrecipe-part").mkdir()
    with pytest.raises(OutputError, match="already holds"), staging(tmp_path / "out"):
        pass
    assert _left(tmp_path) == ["out"]
