"""A mix from its question to its checkpoint, nothing stubbed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from quantrecipe.advisor import cli as advisor_cli
from quantrecipe.recipe_file import dump_recipe, load_recipe
from tests.runner_models import make_workplace, qrun


def _ask(root: Path, *more: str) -> int:
    with pytest.raises(SystemExit) as leave:
        advisor_cli.main(
            ["--model", str(root / "model"), "--measure", "--calibration", f"{root / 'calibration.txt'}:16x32",
             "--schemes", "w2a16-g32,w3a16-g32,w4a16-g32,w8a16", *more]
        )  # fmt: skip
    return int(leave.value.code or 0)


@pytest.mark.slow
def test_the_checkpoint_has_the_bytes_that_were_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_workplace(tmp_path, dtype=torch.bfloat16)
    monkeypatch.setenv("QUANTRECIPE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "mix.yaml"
    assert _ask(root, "--size", "115kB", "-o", str(path), "--format", "json") == 0
    said = json.loads(capsys.readouterr().out)
    recipe = load_recipe(path)
    assert recipe.expected is not None and recipe.expected.file_bytes == said["mix"]["bytes"]
    assert 0.95 * 115_000 < said["mix"]["bytes"] <= 115_000
    assert any("predicted" in line for line in said["verified"])
    recipe.evaluation.perplexity = None
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert qrun(path, "--output", tmp_path / "out") == 0
    written = sum(one.stat().st_size for one in (tmp_path / "out").glob("*.safetensors"))
    assert written == recipe.expected.file_bytes
    capsys.readouterr()
    assert _ask(root, "--size", "115kB", "--format", "json") == 0
    shown, steps = capsys.readouterr()
    assert "measured before" in steps and "quantize (" not in steps
    assert json.loads(shown)["mix"] == said["mix"]
