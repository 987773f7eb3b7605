"""Training in a recipe: what is learned by fine-tuning the whole model, before or beside its rounded weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from quantrecipe.recipe_part import Part, name_of, named

Precision = Literal["fp32", "bf16", "fp16", "mixed"]


class _Training(Part):
    """What both kinds share; the text is the recipe's calibration text.

    precision: of forward and backward passes. ``mixed``: fp32 weights under autocast to bf16; ``bf16``, ``fp16``: the
    model in that type, fp16 with loss scaling; steps are taken on fp32 weights in all four.
    steps: of AdamW, after a short warm-up its rate falls to 0. batch: windows a step. seed: of the windows' order.
    objective: ``tokens`` predicts the text, ``original`` the original model's distribution of the next token.
    """

    precision: Precision = "mixed"
    steps: int = Field(100, ge=1, le=1_000_000)
    batch: int = Field(4, ge=1, le=4096)
    seed: int = Field(0, ge=0, lt=2**31)


class QatTraining(_Training):
    """Quantization-aware training: all weights are learned through the rounding of those that will be quantized."""

    name: Literal["qat"] = "qat"
    learning_rate: float = Field(2e-5, gt=0, le=1)
    objective: Literal["tokens", "original"] = "original"


class QloraTraining(_Training):
    """QLoRA (arXiv:2305.14314): a LoRA adapter is learned on the frozen quantized model, through peft.

    adapter: ``kept`` beside the checkpoint, or ``merged`` into its weights, which are then rounded again.
    """

    name: Literal["qlora"] = "qlora"
    learning_rate: float = Field(2e-4, gt=0, le=1)
    objective: Literal["tokens", "original"] = "tokens"
    rank: int = Field(16, ge=1, le=1024)
    adapter: Literal["kept", "merged"] = "kept"


TRAININGS = ("qat", "qlora")


def _tag(value: object) -> str | None:
    name = name_of(value)
    return name if name in TRAININGS else None


Training = Annotated[
    Annotated[QatTraining, Tag("qat")] | Annotated[QloraTraining, Tag("qlora")],
    Discriminator(
        _tag,
        custom_error_type="training",
        custom_error_message="unknown training; known are qat and qlora",
    ),
    BeforeValidator(named),
]
