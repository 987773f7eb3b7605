"""Tasks through lm-eval, offline, from files beside the recipe: answers are those that plain sums of losses give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from quantrecipe.errors import QuantRecipeError
from quantrecipe.modeling.skeleton import local_path
from quantrecipe.recipe import Recipe
from quantrecipe.runner.tasks import SHIPPED, answer_tasks, check_tasks, task_names


def _recipe(**parts: Any) -> Recipe:
    groups = {"config_groups": {"main": "w4a16-g64"}}
    return Recipe.model_validate({"model": {"id": "demo"}, "quantization": groups, **parts})


def test_gates_bring_their_tasks() -> None:
    gates = {"min_task_accuracy": {"b": 0.5}, "max_task_drop": {"a": 0.1, "c": 0.1}}
    assert task_names(_recipe(evaluation={"tasks": ["a"]}, gates=gates)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("task: x\ntest: !function os.system\n", "not valid YAML"), ("- 1\n", "not a task"), (None, "cannot read")],
)
def test_a_task_file_is_data(text: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantrecipe.runner.tasks.find_spec", lambda _: object())
    path = tmp_path / "task.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(QuantRecipeError, match=said):
        check_tasks(_recipe(evaluation={"tasks": [str(path)]}))


def _by_hand(model: Any, tokenizer: Any, row: dict[str, Any]) -> bool:
    """The choice of least loss, its tokens those of the whole sentence after those of its beginning."""
    sums = []
    for choice in row["choices"]:
        start = tokenizer(row["text"])["input_ids"]
        whole = torch.tensor([tokenizer(f"{row['text']} {choice}")["input_ids"]])
        with torch.inference_mode():
            logits = model(whole).logits[0, len(start) - 1 : -1].log_softmax(-1)
        sums.append(float(logits.gather(-1, whole[0, len(start) :, None]).sum()))
    return sums.index(max(sums)) == row["answer"]


def test_answers_are_those_of_plain_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    folder = local_path("demo")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        for weight in model.model.layers[1].parameters():
            weight.add_(0.05 * torch.randn_like(weight))  # so that some answers are wrong
    found = answer_tasks(model, tokenizer, ["builtin:endings"])["builtin:endings"]
    rows = [json.loads(line) for line in (SHIPPED / "endings.jsonl").read_text().splitlines()]
    assert found.right == [_by_hand(model, tokenizer, row) for row in rows]
    assert 0 < sum(found.right) < len(rows)
