"""Backends that drive another library, on a CUDA device: quantized, reloaded and measured there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from runner_models import qrun

from quantrecipe.plugins.manager import backend

GPTQ = {"scheme": "w4a16-g64", "method": {"name": "gptq", "actorder": None}}
GROUPS: dict[str, dict[str, Any]] = {
    "autogptq": GPTQ,
    "gptqmodel": GPTQ,
    "llmcompressor": GPTQ,
    "bitsandbytes": {"scheme": "nf4"},
    "torchao": {"scheme": "w8a16"},
}


@pytest.mark.gpu
@pytest.mark.parametrize("name", sorted(GROUPS))
def test_a_backend_works_on_cuda(name: str, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    here = backend(name).availability()
    if not here.available:
        pytest.skip(f"{here.missing}: {here.remedy}")
    recipe = {
        "version": 1,
        "model": {"id": "demo"},
        "quantization": {"backend": name, "fallback": name, "config_groups": {"main": GROUPS[name]}},
        "calibration": {"samples": 32, "sequence_length": 256},
        "evaluation": {"perplexity": {"dataset": "builtin", "sequence_length": 256, "windows": 40}},
        "gates": {"max_perplexity_increase": "5%"},
        "output": {"path": str(tmp_path / "out")},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    assert qrun(tmp_path / "r.yaml", "--device", "cuda") == 0
    found = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert found["output"]["backend"] == name and found["environment"]["device"] == "cuda"
