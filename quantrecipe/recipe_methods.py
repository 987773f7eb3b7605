"""Methods as a recipe names them: one class a method, its options, and what it must look at."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Discriminator, Field, Tag

from quantrecipe.recipe_part import Part

#: Nothing; a layer's inputs on the calibration text; the outputs of its block, original and quantized.
Needs = Literal["nothing", "inputs", "block outputs"]


class RtnMethod(Part):
    """Round to nearest: no calibration. Integers, fp8, nf4 and fp4 (as bitsandbytes), mxfp4, nvfp4."""

    needs: ClassVar[Needs] = "nothing"
    name: Literal["rtn"] = "rtn"


class GlmInt4Method(Part):
    """GLM-130B's weight quantization (arXiv:2210.02414, section 4): symmetric rounding by rows, s = max|w| / 7."""

    needs: ClassVar[Needs] = "nothing"
    name: Literal["glm-int4"]


class HqqMethod(Part):
    """HQQ: zero points by half-quadratic splitting, without calibration.

    p: the norm of the error, below 1 forgives outliers. beta, kappa: penalty and its growth an iteration.
    """

    needs: ClassVar[Needs] = "nothing"
    name: Literal["hqq"]
    p: float = Field(0.7, gt=0, le=1)
    beta: float = Field(10.0, gt=0)
    kappa: float = Field(1.01, ge=1)
    iterations: int = Field(20, ge=1, le=1000)


class LlmInt8Method(Part):
    """LLM.int8() (arXiv:2208.07339): int8 by rows and tokens; features with inputs >= ``threshold`` stay 16-bit."""

    needs: ClassVar[Needs] = "nothing"
    name: Literal["llm-int8"]
    threshold: float = Field(6.0, gt=0)


class OliveMethod(Part):
    """OliVe (arXiv:2304.07493): outlier-victim pairs. grid: thresholds that are tried for the least squared error."""

    needs: ClassVar[Needs] = "nothing"
    name: Literal["olive"]
    grid: int = Field(20, ge=2, le=1000)


class _Solver(Part):
    """GPTQ's options; see there."""

    needs: ClassVar[Needs] = "inputs"
    dampening_frac: float = Field(0.01, gt=0, lt=1)
    actorder: Literal["static", "group_aware"] | None = "static"
    block_size: int = Field(128, ge=1, le=8192)


class GptqMethod(_Solver):
    """GPTQ (arXiv:2210.17323): Hessian-aware rounding, column by column.

    dampening_frac: share of the Hessian's mean diagonal added to the diagonal.
    actorder: ``static`` takes columns by falling diagonal of the Hessian and keeps the groups in their place;
    ``group_aware`` takes groups so, and the columns within each, with scales from the weights as compensated by then
    (arXiv:2505.14638). Neither changes what is stored.
    block_size: columns between two updates of the rest of the matrix.
    """

    name: Literal["gptq"]


class OdysseyMethod(_Solver):
    """FastGEMM's recipe (arXiv:2311.09550, section 4): clipping learned by gradient, then GPTQ on the clipped grid.

    steps: of Adam on the clipping of each scale. learning_rate: of those steps. The rest: GPTQ's.
    """

    name: Literal["odyssey"]
    steps: int = Field(100, ge=1, le=10000)
    learning_rate: float = Field(0.01, gt=0)


class AwqClipMethod(Part):
    """AWQ's search for clipping (arXiv:2306.00978; AutoAWQ): the scale of each group that loses least at the output.

    grid: ranges tried. max_shrink: the smallest is 1 - max_shrink of the full range.
    """

    needs: ClassVar[Needs] = "inputs"
    name: Literal["awq-clip"]
    grid: int = Field(20, ge=2, le=1000)
    max_shrink: float = Field(0.5, gt=0, lt=1)


class _Distillation(Part):
    """ZeroQuant's options; see below."""

    needs: ClassVar[Needs] = "block outputs"
    steps: int = Field(100, ge=1, le=100_000)
    learning_rate: float = Field(0.005, gt=0, le=10)
    batch: int = Field(1, ge=1, le=4096)
    seed: int = Field(0, ge=0, lt=2**31)


class ZqLocalMethod(_Distillation):
    """ZeroQuant's layer-wise distillation (arXiv:2206.01861, section 4.3), on the original network's inputs.

    steps: of Adam a block, at the most. learning_rate: what a step moves a weight by, in steps of the layer's number
    grid, falling to 0. batch: windows a step, at least 2,048 tokens. seed: of the order of the windows.
    """

    name: Literal["zq-local"]


class ZqGlobalMethod(_Distillation):
    """The same on the quantized prefix's inputs, against the original network's outputs (arXiv:2303.08302).

    steps, learning_rate, batch, seed: as zq-local's.
    """

    name: Literal["zq-global"]


class OtherMethod(Part):
    """A method that a plugin brings; its options are checked by that plugin."""

    needs: ClassVar[Needs] = "inputs"
    name: str
    options: dict[str, Any] = {}


_KNOWN = (
    RtnMethod, GlmInt4Method, HqqMethod, LlmInt8Method, OliveMethod, GptqMethod, OdysseyMethod, AwqClipMethod,
    ZqLocalMethod, ZqGlobalMethod,
)  # fmt: skip
METHODS: dict[str, type[Part]] = {get_args(one.model_fields["name"].annotation)[0]: one for one in _KNOWN}
METHOD_TAGS = (*METHODS, "other")


def method_tag(value: Any) -> str:
    """Which class reads this value."""
    name = value.get("name", "rtn") if isinstance(value, dict) else getattr(value, "name", "other")
    return name if name in METHODS else "other"


Method = Annotated[
    Annotated[RtnMethod, Tag("rtn")]
    | Annotated[GlmInt4Method, Tag("glm-int4")]
    | Annotated[HqqMethod, Tag("hqq")]
    | Annotated[LlmInt8Method, Tag("llm-int8")]
    | Annotated[OliveMethod, Tag("olive")]
    | Annotated[GptqMethod, Tag("gptq")]
    | Annotated[OdysseyMethod, Tag("odyssey")]
    | Annotated[AwqClipMethod, Tag("awq-clip")]
    | Annotated[ZqLocalMethod, Tag("zq-local")]
    | Annotated[ZqGlobalMethod, Tag("zq-global")]
    | Annotated[OtherMethod, Tag("other")],
    Discriminator(method_tag),
]
