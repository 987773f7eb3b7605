"""What pre-flight counts for training: what it grows with, and, on the demo model, against the measured peak."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantrecipe.modeling.folder import ModelFolder
from quantrecipe.modeling.plan import Plan, make_plan
from quantrecipe.modeling.skeleton import Skeleton
from quantrecipe.recipe import Recipe
from quantrecipe.recipe_training import Precision, QatTraining, QloraTraining
from quantrecipe.runner.capability import choose_backend
from quantrecipe.runner.engine_check import is_odd
from quantrecipe.runner.locate import find
from quantrecipe.runner.needs_training import Step, training_memory
from quantrecipe.runner.preflight import plan_needs

PRECISIONS: tuple[Precision, ...] = ("fp32", "mixed", "bf16", "fp16")
#: Two steps in a process of its own, for a peak that is nobody else's; its last line is that peak.
CHILD = """
import json, sys
from quantrecipe.recipe import Recipe
from quantrecipe.runner.pipeline import run
found = run(Recipe.model_validate(json.loads(sys.argv[1])), output=sys.argv[2], device="cpu").results
print(next(stage["peak_memory"] for stage in found["stages"] if stage["name"] == "quantize"))
"""


def recipe(scheme: str, form: str, training: dict[str, Any], samples: int = 40) -> dict[str, Any]:
    return {
        "model": {"id": "demo"},
        "quantization": {
            "backend": "training", "format": form, "config_groups": {"main": scheme}, "training": training,
        },
        "calibration": {"samples": samples, "sequence_length": 256},
        "evaluation": {"perplexity": {"sequence_length": 64, "windows": 2}, "generations": 0},
    }  # fmt: skip


def demo_plan(scheme: str = "w4a16-g64") -> Plan:
    given = Recipe.model_validate({"model": {"id": "demo"}, "quantization": {"config_groups": {"main": scheme}}})
    return make_plan(given, Skeleton(ModelFolder.open(find("demo"))).linears())


PLAN, ROUNDING = demo_plan(), demo_plan("w4a8-g64")
STEP = Step(5_000_000, 4096, 256)


def total(plan: Plan, training: QatTraining | QloraTraining, step: Step = STEP) -> int:
    return sum(training_memory(plan, training, step).values())


@given(st.sampled_from(PRECISIONS), st.integers(1, 64), st.integers(1, 63))
def test_memory_grows_with_the_batch_by_the_text_alone(precision: Precision, batch: int, more: int) -> None:
    """Linear in the tokens of a step: weights, gradients and moments do not depend on them."""
    few, many, most = (
        total(PLAN, QatTraining(precision=precision, batch=b)) for b in (batch, batch + more, batch + 2 * more)
    )
    assert few < many
    assert abs((most - many) - (many - few)) <= 2


@pytest.mark.parametrize("precision", PRECISIONS)
def test_qlora_needs_less_than_qat_and_another_model_more(precision: Precision) -> None:
    qat, qlora = QatTraining(precision=precision, objective="tokens"), QloraTraining(precision=precision, rank=8)
    big = Step(5 * 10**9, 4096, 256)
    assert total(PLAN, qlora, big) < total(PLAN, qat, big)
    assert total(PLAN, qat) < total(PLAN, QatTraining(precision=precision, objective="original"))
    assert total(PLAN, qat) < total(ROUNDING, qat)  # rounded inputs are kept beside what they were


def test_a_learned_weight_takes_sixteen_bytes_and_what_it_is_held_in() -> None:
    """fp32 value, gradient and two moments (Adam, arXiv:1412.6980) and the 16-bit model; in fp32 those are one."""
    few, many = Step(10**6, 4096, 256), Step(2 * 10**6, 4096, 256)
    for precision, bytes_each in (("fp32", 16), ("mixed", 16), ("bf16", 18), ("fp16", 18)):
        training = QatTraining.model_validate({"precision": precision, "objective": "tokens"})
        assert total(PLAN, training, many) - total(PLAN, training, few) == bytes_each * 10**6


def test_a_tied_head_is_counted_once() -> None:
    given = Recipe.model_validate(recipe("w4a16-g64", "compressed-tensors", {"name": "qat", "precision": "bf16"}))
    skeleton = Skeleton(ModelFolder.open(find("demo")))
    assert any(one.is_head and one.is_tied for one in skeleton.linears())
    plan = make_plan(given, skeleton.linears())
    memory = plan_needs(given, plan, skeleton, choose_backend(given, is_odd(plan), "cpu")[0], "cpu").memory
    stored = sum(skeleton.folder.info(name).numel for name in skeleton.folder.names)
    assert memory["the model, in what it computes with"] == 2 * stored


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "form", "training"),
    [
        ("w4a8-g64", "compressed-tensors", {"name": "qat", "precision": "fp32", "batch": 16}),
        ("w4a8-g64", "compressed-tensors", {"name": "qat", "precision": "mixed", "batch": 16}),
        ("w4a16-g64", "compressed-tensors", {"name": "qat", "precision": "bf16", "batch": 4, "objective": "tokens"}),
        ("nf4-dq", "bitsandbytes", {"name": "qlora", "precision": "bf16", "batch": 16, "rank": 8}),
        ("nf4-dq", "bitsandbytes", {"name": "qlora", "precision": "mixed", "batch": 4, "objective": "original"}),
    ],
)
def test_the_demo_peaks_close_to_what_is_counted(
    tmp_path: Any, scheme: str, form: str, training: dict[str, Any]
) -> None:
    """Few steps peak lower than many, and peaks of one recipe differ by 7 % from run to run."""
    asked = recipe(scheme, form, {"steps": 3, **training})
    given = Recipe.model_validate(asked)
    skeleton = Skeleton(ModelFolder.open(find("demo")))
    plan = make_plan(given, skeleton.linears())
    counted = plan_needs(given, plan, skeleton, choose_backend(given, is_odd(plan), "cpu")[0], "cpu").total_memory
    command = [sys.executable, "-c", CHILD, json.dumps(asked), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = int(done.stdout.strip().splitlines()[-1])
    assert 0.8 * counted < peak < 1.05 * counted
