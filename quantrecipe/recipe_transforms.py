"""Transforms and compensations of a recipe: what is done to a model before and after its weights are rounded."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from quantrecipe.recipe_part import Part, name_of, named


class TransformPart(Part):
    """What every transform says. looks_at_text: it looks at activations over calibration text."""

    looks_at_text: ClassVar[bool] = True


class SmoothQuantTransform(TransformPart):
    """SmoothQuant (arXiv:2211.10438): scales that move the difficulty of activations into weights.

    alpha: the share that moves, or ``search`` for the one of least output error at every place.
    places: ``all`` where channels pass unmixed, or behind ``norms`` alone, as in the paper.
    """

    name: Literal["smoothquant"] = "smoothquant"
    alpha: Annotated[float, Field(ge=0, le=1)] | Literal["search"] = 0.5
    places: Literal["all", "norms"] = "all"


class AwqTransform(TransformPart):
    """AWQ's scales (arXiv:2306.00978): salient channels of the weights grow before they are rounded.

    grid: how many exponents between 0 and 1 are tried at every place.
    """

    name: Literal["awq"] = "awq"
    grid: int = Field(20, ge=2, le=200)


class OutlierSuppressionTransform(TransformPart):
    """Outlier Suppression+ (arXiv:2304.09145): channels are centred by a shift, then scaled onto a threshold.

    shift: False scales only, as happens anyway where no bias is there to fold a shift into (RMSNorm models).
    """

    name: Literal["outlier-suppression-plus"] = "outlier-suppression-plus"
    shift: bool = True


class HadamardTransform(TransformPart):
    """A randomized Hadamard rotation of the residual stream, folded into the weights (QuaRot, arXiv:2404.00456).

    seed: of the random signs.
    """

    looks_at_text: ClassVar[bool] = False

    name: Literal["hadamard"] = "hadamard"
    seed: int = Field(0, ge=0, lt=2**31)


class RptqTransform(TransformPart):
    """RPTQ (arXiv:2304.01089): input channels in clusters of alike range, each with a static scale of its own.

    clusters: the most of them a layer. Only format ``quantrecipe`` holds them.
    """

    name: Literal["rptq"] = "rptq"
    clusters: int = Field(32, ge=1, le=256)


class OtherTransform(TransformPart):
    """A transform that a plugin brings; its options are checked by that plugin."""

    name: str
    options: dict[str, Any] = {}


class LorcCompensation(Part):
    """LoRC (ZeroQuant-V2, arXiv:2303.08302): the error of each layer, at a low rank, beside its weights.

    factor_bits: 8 rounds the two factors to 8-bit integers first, as the paper shows to cost nothing.
    """

    name: Literal["lorc"] = "lorc"
    rank: int = Field(8, ge=1, le=1024)
    factor_bits: Literal[8, 16] = 16


class OtherCompensation(Part):
    """A compensation that a plugin brings; its options are checked by that plugin."""

    name: str
    options: dict[str, Any] = {}


_TRANSFORMS = ("smoothquant", "awq", "outlier-suppression-plus", "hadamard", "rptq")


def _transform_tag(value: Any) -> str:
    name = name_of(value)
    return name if name in _TRANSFORMS else "other"


def _compensation_tag(value: Any) -> str:
    return "lorc" if name_of(value) == "lorc" else "other"


Transform = Annotated[
    Annotated[SmoothQuantTransform, Tag("smoothquant")]
    | Annotated[AwqTransform, Tag("awq")]
    | Annotated[OutlierSuppressionTransform, Tag("outlier-suppression-plus")]
    | Annotated[HadamardTransform, Tag("hadamard")]
    | Annotated[RptqTransform, Tag("rptq")]
    | Annotated[OtherTransform, Tag("other")],
    Discriminator(_transform_tag),
    BeforeValidator(named),
]
Compensation = Annotated[
    Annotated[LorcCompensation, Tag("lorc")] | Annotated[OtherCompensation, Tag("other")],
    Discriminator(_compensation_tag),
    BeforeValidator(named),
]
