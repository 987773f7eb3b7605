"""The whole runner on mixtures of experts: planned, quantized, verified by the loader that reads them, measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runner_models import make_workplace, qrun, recipe_data, write_recipe


def test_dry_run_of_a_mixtral_gives_the_full_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_workplace(tmp_path, "mixtral")
    assert qrun("--dry-run", write_recipe(root, recipe_data(root, method="gptq"))) == 0
    lines = capsys.readouterr().out.splitlines()
    kinds = {"gate_proj": "128 x 64", "up_proj": "128 x 64", "down_proj": "64 x 128"}
    for leaf, shape in kinds.items():
        (line,) = (line for line in lines if f"mlp.experts.*.{leaf}" in line)
        assert line.split()[0] == "12" and shape in line and "w4a16-g32" in line
    (router,) = (line for line in lines if "mlp.gate" in line and line.startswith("  "))
    assert "as it is" in router and "routers stay as they are" in router
    assert any(line.startswith("note") and "routers" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "scheme", "method", "loader"),
    [
        ("mixtral", "w4a16-g32", "gptq", "transformers"),
        ("deepseek-v3", "w4a16-g32", "gptq", "transformers"),
        ("qwen2-moe", "w4a16-g32-asym", "rtn", "passes over the zero points"),
        ("gpt-oss", "w4a16-g32", "gptq", "knows no single experts"),
        ("deepseek-v2", "w8a8", "gptq", "only where all are packed"),
    ],
)
def test_run_and_verify(family: str, scheme: str, method: str, loader: str, tmp_path: Path) -> None:
    root = make_workplace(tmp_path, family)
    data = recipe_data(root, scheme=scheme, method=method)
    data["quantization"]["format"] = "compressed-tensors"
    assert qrun(write_recipe(root, data)) == 0
    results = json.loads((root / "out" / "results.json").read_text(encoding="utf-8"))
    assert loader in results["verified"]["loader"] and results["verified"]["faults"] == []
    assert results["measures"]["kl"]["value"] >= 0
    counted = [layer["tokens"] for layer in results["layers"] if ".experts." in layer["name"]]
    assert all((tokens is None) == (method == "rtn") for tokens in counted)
    assert any("tokens an expert" in note for note in results["notes"]) == (method == "gptq")
    assert qrun("verify", root / "out", "--original", root / "model") == 0
