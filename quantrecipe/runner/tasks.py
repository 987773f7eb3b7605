"""Questions of lm-eval's tasks, answered by original and quantized: through the lm-eval library, an extra.

A task is a name that lm-eval knows, or the path of a task file (.yaml), which is read as data: ``!function``
is refused, and paths of data files in it are relative to it, so that a task can lie beside its recipe.
"""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from quantrecipe.errors import QuantRecipeError
from quantrecipe.recipe import Recipe
from quantrecipe.safe_yaml import parse, read_text

#: Metrics of one question that are 0 or 1, the first that a task has is used.
METRICS = ("acc", "acc_norm", "exact_match")
SHIPPED = Path(__file__).parent.parent / "demo" / "tasks"


@dataclass(frozen=True, slots=True)
class Answers:
    """Which questions were answered rightly, in the task's order, by which metric."""

    right: list[bool]
    metric: str


def task_names(recipe: Recipe) -> list[str]:
    """The tasks that a recipe asks for, its gates' among them."""
    gates = recipe.gates
    return list(dict.fromkeys([*recipe.evaluation.tasks, *gates.min_task_accuracy, *gates.max_task_drop]))


def check_tasks(recipe: Recipe) -> None:
    """Raises QuantRecipeError where tasks are asked for that cannot be run here."""
    names = task_names(recipe)
    if not names:
        return
    if find_spec("lm_eval") is None:
        raise QuantRecipeError(
            "tasks need lm-eval, which is not installed", value=names[0], remedy="pip install 'quantrecipe[tasks]'"
        )
    for name in names:
        if name.endswith(".yaml") or name.startswith("builtin:"):
            _config(name)


def answer_tasks(model: Any, tokenizer: Any, names: list[str], batch_size: int = 8) -> dict[str, Answers]:
    """Let the model answer every question of every task. Raises QuantRecipeError."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        samples, given = _samples(model, tokenizer, names, batch_size)
    return {name: _answers(name, samples[_key(name, one)]) for name, one in zip(names, given, strict=True)}


def _samples(model: Any, tokenizer: Any, names: list[str], batch_size: int) -> tuple[dict[str, Any], list[Any]]:
    """lm-eval's record of every question, by task; and the tasks as they were given to it."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    given: list[Any] = [_config(name) if _is_file(name) else name for name in names]
    try:
        found = lm_eval.simple_evaluate(
            model=wrapped,
            tasks=given,
            log_samples=True,
            bootstrap_iters=0,
            task_manager=TaskManager(),
        )
    except Exception as error:  # the library raises errors of many kinds
        raise QuantRecipeError(
            "lm-eval could not run the tasks", value=", ".join(names), limit=f"{type(error).__name__}: {error}"[:200]
        ) from error
    return found["samples"], given


def _is_file(name: str) -> bool:
    return name.endswith(".yaml") or name.startswith("builtin:")


def _key(name: str, given: Any) -> str:
    return str(given["task"]) if isinstance(given, dict) else name


def _config(name: str) -> dict[str, Any]:
    """A task file as data, its data files found beside it."""
    path = SHIPPED / f"{name.removeprefix('builtin:')}.yaml" if name.startswith("builtin:") else Path(name)
    data = parse(read_text(path, "task", QuantRecipeError), str(path), QuantRecipeError).data
    if not isinstance(data, dict) or "task" not in data:
        raise QuantRecipeError("not a task of lm-eval", value=str(path), limit="a mapping with the key task")
    files = (data.get("dataset_kwargs") or {}).get("data_files")
    if isinstance(files, dict):
        data["dataset_kwargs"]["data_files"] = {split: str(path.parent / file) for split, file in files.items()}
    return data


def _answers(name: str, samples: list[dict[str, Any]]) -> Answers:
    """Of lm-eval's samples, whose keys are metrics among others."""
    metric = next((metric for metric in METRICS if samples and metric in samples[0]), None)
    if metric is None:
        raise QuantRecipeError("the task has no metric that counts questions", value=name, limit=", ".join(METRICS))
    ordered = sorted(samples, key=lambda sample: int(sample["doc_id"]))
    return Answers([bool(float(sample[metric]) >= 0.5) for sample in ordered], metric)
