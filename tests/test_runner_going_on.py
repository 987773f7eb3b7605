"""A run that is stopped behind quantizing goes on at verifying or measuring, to the same report."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from families import make_model
from runner_models import make_workplace, qrun, recipe, recipe_data, timeless, write_recipe

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.journal import Journal
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.plugins.native.backend import NativeBackend
from quantrecipe.runner import evaluate, ledger, scorers
from quantrecipe.runner.baseline import read_results
from quantrecipe.runner.evaluate import Scoring, score
from quantrecipe.runner.kept_scores import KeptScores
from quantrecipe.runner.ledger import Ledger, Pass
from quantrecipe.runner.losses import WindowScores
from quantrecipe.runner.pipeline import run
from quantrecipe.runner.progress import Quiet
from quantrecipe.runner.result import Result
from quantrecipe.runner.scorers import Streamed
from quantrecipe.runner.verify_process import answer

Act = Callable[..., Any]


@pytest.fixture(autouse=True)
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantrecipe.runner.verify.ask", lambda request, _: answer(request.to_json()))
    monkeypatch.setattr(ledger, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(ledger, "LEAST_SHARE", 0)


def stops(*given: Any, **_: Any) -> None:
    """As Ctrl-C would, there; not where a scratch folder that is not there yet is removed."""
    if not (given and isinstance(given[0], Path) and not given[0].exists()):
        raise KeyboardInterrupt


def forbidden(*_: object, **__: object) -> Any:
    """What a run that goes on must not do again."""
    raise AssertionError("done again")


def test_findings_are_those_about_this_checkpoint(tmp_path: Path) -> None:
    book = Ledger(tmp_path, "a" * 64)
    book.keep("logits", {"n": 1}, {"x": torch.arange(4.0)})
    book.keep("logits", {"n": 2}, {"x": torch.arange(5.0)})
    assert book.once("verified", lambda: {"faults": []}) == {"faults": []}
    book.close()
    assert len([*tmp_path.glob("*.safetensors")]) == 1
    again = Ledger(tmp_path, "a" * 64)
    assert again.data("logits") == {"n": 2}
    assert torch.equal(again.tensors("logits")["x"], torch.arange(5.0))  # type: ignore[index]
    assert again.once("verified", forbidden) == {"faults": []}
    again.close()
    other = Ledger(tmp_path, "b" * 64)
    assert other.data("logits") is other.tensors("logits") is None
    other.close()


def test_a_damaged_file_counts_for_nothing(tmp_path: Path) -> None:
    book = Ledger(tmp_path, "a")
    book.keep("logits", None, {"x": torch.arange(4.0)})
    (path,) = tmp_path.glob("logits-*.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert book.tensors("logits") is None
    book.close()


@pytest.mark.parametrize(
    "file", [{"../kept.safetensors": "0"}, {"a/b": "0"}, {"x": "0", "y": "1"}, {}, ["x"], {"..": ""}]
)
def test_a_line_cannot_name_a_file_elsewhere(file: object, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    outside = tmp_path / "kept.safetensors"
    outside.write_bytes(b"x")
    journal = Journal(tmp_path / "scratch")
    journal.add("found", what="logits", mark="a", data=1, file=file)
    journal.add("found", mark="a", data=1, file=None)
    journal.close()
    book = Ledger(tmp_path / "scratch", "a")
    assert book.data("logits") is book.tensors("logits") is None
    book.keep("logits", 2)
    book.close()
    assert outside.read_bytes() == b"x"


def _scorers(root: Path, family: str) -> list[Streamed]:
    names = [root / str(seed) for seed in (0, 1)]
    folders = [name if name.exists() else make_model(family, name, seed=seed) for seed, name in enumerate(names)]
    return [Streamed(Skeleton(ModelFolder.open(folder))) for folder in folders]


@pytest.mark.parametrize("divergence", [True, False])
def test_batches_that_were_scored_are_not_scored_again(
    divergence: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers, "TOKENS_A_BATCH", 48)
    tokens = torch.randint(3, 160, (11, 24), generator=torch.Generator().manual_seed(1))
    plain = score(*_scorers(tmp_path, "llama-tied"), tokens, Quiet(), Scoring(divergence))
    book = Ledger(tmp_path, "a")
    how = Scoring(divergence, room=1, kept=KeptScores(book))
    done: list[torch.Tensor] = []
    real = KeptScores.keep

    def keep(self: KeptScores, batch: torch.Tensor, scores: WindowScores) -> None:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(batch)
        real(self, batch, scores)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(KeptScores, "keep", keep)
        score(*_scorers(tmp_path, "llama-tied"), tokens, Quiet(), how)
    book.close()
    book = Ledger(tmp_path, "a")
    first, second = _scorers(tmp_path, "llama-tied")
    seen: list[int] = []
    run_once = Streamed.run
    monkeypatch.setattr(
        Streamed, "run", lambda self, given, *rest: (seen.append(len(given)), run_once(self, given, *rest))[1]
    )
    found = score(first, second, tokens, Quiet(), Scoring(divergence, kept=KeptScores(book)))  # now in one turn
    book.close()
    assert seen == [3, 3]  # of six batches of two windows, the last of one, four were known
    for name in ("original_tokens", "quantized_tokens", "kl", "agreement"):
        one, other = getattr(found, name), getattr(plain, name)
        assert one is other is None or torch.equal(one, other)


@pytest.mark.parametrize("family", ["llama-tied", "gpt2", "gemma2"])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_pass_goes_on_at_the_block_where_it_was(
    family: str, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorers, "TOKENS_A_BATCH", 48)
    tokens = torch.randint(3, 160, (5, 24), generator=torch.Generator().manual_seed(1))
    plain, stopped = _scorers(tmp_path, family)[0], _scorers(tmp_path, family)[0]
    plain.run(tokens, Quiet())
    book = Ledger(tmp_path, "a")
    real = Pass.keep

    def keep(self: Pass, place: int, hidden: list[torch.Tensor]) -> None:
        real(self, place, hidden)
        if place == stop:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Pass, "keep", keep)
        stopped.run(tokens, Quiet(), KeptScores(book).on_its_way("original", tokens))
    again, seen = _scorers(tmp_path, family)[0], list[str]()
    monkeypatch.setattr(Quiet, "advance", lambda self, steps=1, block=None: seen.append(block) if block else None)
    again.run(tokens, Quiet(), KeptScores(book).on_its_way("original", tokens))
    assert len(seen) == len(again.skeleton.blocks) - stop
    assert all(torch.equal(*pair) for pair in zip(plain.hidden, again.hidden, strict=True))
    assert KeptScores(book).on_its_way("original", tokens[:4]).resume() is None
    book.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workplace(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def unbroken(place: Path) -> Result:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("quantrecipe.runner.verify.ask", lambda request, _: answer(request.to_json()))
        return run(recipe(place, scheme="w4a16-g32", method="gptq"), output=place / "unbroken")


def _told(results: Mapping[str, Any]) -> dict[str, Any]:
    """What both runs must say alike: these two have other outputs, and one was given as an object."""
    return timeless(results) | dict.fromkeys(("output", "recipe", "command", "recipe_file"))


def _same(place: Path, unbroken: Result) -> None:
    assert _told(read_results(place / "out/results.json")) == _told(unbroken.results)
    for path in unbroken.output.glob("*.safetensors"):
        assert path.read_bytes() == (place / "out" / path.name).read_bytes()
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []


STOPS = {
    "finish": "quantrecipe.runner.pipeline.keep_checkpoint",
    "verify": "quantrecipe.runner.verify.ask",
    "sizes": "quantrecipe.runner.measure.sizes",
    "original": "quantrecipe.runner.evaluate._pass",
    "compare": "quantrecipe.runner.evaluate._compared",
    "report": "quantrecipe.runner.pipeline.write_report",
    "placing": "quantrecipe.runner.staging.rename",
    "removing": "quantrecipe.runner.staging.remove_scratch",
}


FAST = ("verify", "compare", "removing")


@pytest.mark.parametrize("where", [pytest.param(one, marks=() if one in FAST else pytest.mark.slow) for one in STOPS])
def test_a_run_goes_on_where_it_was_stopped(
    where: str, place: Path, unbroken: Result, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe(place, recipe_data(place, "w4a16-g32", "gptq"))
    with monkeypatch.context() as patched:
        patched.setattr(STOPS[where], stops)
        assert qrun(path) == 130
    said = capsys.readouterr().err
    how = "tells how it went" if where == "removing" else "goes on from there"
    assert re.search(rf"^qrun: interrupted; the .*; qrun .* {how}$", said, re.MULTILINE)
    if where != "finish":
        monkeypatch.setattr(NativeBackend, "quantize", forbidden)
    if where not in ("finish", "verify"):
        monkeypatch.setattr("quantrecipe.runner.verify.verify", forbidden)
    if where in ("report", "placing", "removing"):
        monkeypatch.setattr(evaluate, "_turn", forbidden)
    assert qrun(path) == 0
    _same(place, unbroken)
    assert "checkpoint: " in capsys.readouterr().out
    assert qrun(path) == 2
    for file in (place / "out").iterdir():
        file.unlink()
    (place / "out").rmdir()


def test_a_checkpoint_that_changed_meanwhile_is_made_again(
    place: Path, unbroken: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe(place, recipe_data(place, "w4a16-g32", "gptq"))
    with monkeypatch.context() as patched:
        patched.setattr(STOPS["report"], stops)
        assert qrun(path) == 130
    held = place / ".out.quantrecipe-part" / "checkpoint" / "model.safetensors"
    held.write_bytes(held.read_bytes()[:-1] + b"\x55")
    assert qrun(path) == 0
    _same(place, unbroken)
