"""The recipe: one small typed file that the advisor writes, the runner reads and every backend obeys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from quantrecipe.errors import QuantRecipeError
from quantrecipe.recipe_combinations import combination_fault, training_fault
from quantrecipe.recipe_methods import GptqMethod, LlmInt8Method, Method, OtherMethod, RtnMethod
from quantrecipe.recipe_part import Part
from quantrecipe.recipe_training import Training
from quantrecipe.recipe_transforms import Compensation, Transform
from quantrecipe.schemes import (
    WEIGHT_BITS,
    QuantizationArgs,
    Scheme,
    activation_fault,
    kv_cache_fault,
    parse_scheme,
    scheme_name,
)
from quantrecipe.units import parse_bytes

__all__ = ["GptqMethod", "Group", "Method", "OtherMethod", "Recipe", "RtnMethod"]


def _size(text: Any) -> Any:
    try:
        parse_bytes(text)
    except QuantRecipeError as error:
        raise ValueError(error.line()) from error
    return text


def _increase(value: float | str) -> float | str:
    """An absolute number, or a share of the original such as ``1%``."""
    number = value[:-1] if isinstance(value, str) and value.endswith("%") else value
    try:
        if float(number) > 0:
            return value
    except ValueError:
        pass
    raise ValueError("write a positive number (0.1) or a share of the original ('1%')")


Size = Annotated[str | int, BeforeValidator(_size)]
Increase = Annotated[float | str, AfterValidator(_increase)]


class ModelRef(Part):
    """Which model: a hub id, a folder, or ``demo`` for the one that ships with the package."""

    id: str = Field(min_length=1)
    revision: str | None = None


class HardwareRef(Part):
    """The device that serves the model, by the name that ``qadvise hardware`` lists, and how many."""

    name: str
    count: int = Field(1, ge=1, le=1024)


class Target(Part):
    """What the advice was for; pre-flight checks the recipe against it."""

    memory: Size | None = None
    hardware: HardwareRef | None = None
    context: int = Field(2048, ge=1)
    batch: int = Field(1, ge=1)
    engine: str | None = None


class Group(Part):
    """One scheme and method for the modules that ``targets`` name; a later group wins where two match.

    targets: ``Linear`` or ``Embedding`` (the class), a module's full name, or ``re:`` and a pattern that
    must match from the start of the name (as re.match does).
    scheme: a preset's name instead of ``weights`` and ``input_activations``.
    """

    targets: list[str] = Field(["Linear"], min_length=1)
    weights: QuantizationArgs
    input_activations: QuantizationArgs | None = None
    method: Method = RtnMethod()

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {"scheme": data}
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if isinstance(data.get("method"), str):
            data["method"] = {"name": data["method"]}
        return _expand_preset(data) if "scheme" in data else data

    @field_validator("weights")
    @classmethod
    def _storable(cls, weights: QuantizationArgs) -> QuantizationArgs:
        if weights.num_bits not in WEIGHT_BITS:
            raise ValueError(f"weights cannot have num_bits {weights.num_bits}; use 2, 3, 4, 5, 6 or 8")
        if weights.strategy in ("token", "attn_head") or weights.dynamic:
            raise ValueError("weights are stored once: strategy tensor, channel, group or block, dynamic false")
        return weights

    @field_validator("input_activations")
    @classmethod
    def _roundable(cls, inputs: QuantizationArgs | None) -> QuantizationArgs | None:
        fault = None if inputs is None else activation_fault(inputs)
        if fault:
            raise ValueError(fault)
        return inputs

    @model_validator(mode="after")
    def _decomposed(self) -> Group:
        """LLM.int8()'s threshold belongs to its inputs: every reader of the plan sees it there."""
        if isinstance(self.method, LlmInt8Method):
            inputs = QuantizationArgs(
                num_bits=8, strategy="token", dynamic=True, outlier_threshold=self.method.threshold
            )
            self.input_activations = inputs
        return self

    @property
    def scheme(self) -> Scheme:
        """The pair of arguments under its shortest name."""
        return Scheme(scheme_name(self.weights, self.input_activations), self.weights, self.input_activations)


def _expand_preset(data: dict[str, Any]) -> dict[str, Any]:
    name = data.pop("scheme")
    if "weights" in data or "input_activations" in data:
        raise ValueError("give either scheme or weights with input_activations, not both")
    try:
        scheme = parse_scheme(str(name))
    except QuantRecipeError as error:
        raise ValueError(error.line()) from error
    return {**data, "weights": scheme.weights, "input_activations": scheme.input_activations}


FormatName = Literal[
    "auto", "compressed-tensors", "gptq", "gptq_v2", "awq", "bitsandbytes", "gguf", "torchao", "hqq", "quanto",
    "quantrecipe",
]  # fmt: skip


class Quantization(Part):
    """Who quantizes what, how, and in which format it is written.

    training: the whole model is fine-tuned, which takes a backend that holds it whole (``training``).
    """

    backend: str = "native"
    fallback: str | None = None
    format: FormatName = "auto"
    config_groups: dict[str, Group] = Field(min_length=1)
    ignore: list[str] = Field(["lm_head"])
    kv_cache_scheme: QuantizationArgs | None = None
    transforms: list[Transform] = Field([])
    compensation: Compensation | None = None
    training: Training | None = None

    @field_validator("kv_cache_scheme")
    @classmethod
    def _cacheable(cls, cache: QuantizationArgs | None) -> QuantizationArgs | None:
        fault = None if cache is None else kv_cache_fault(cache)
        if fault:
            raise ValueError(fault)
        return cache

    @model_validator(mode="after")
    def _sensible(self) -> Quantization:
        fault = combination_fault(self.transforms, self.config_groups.values(), self.format)
        fault = fault or training_fault(self)
        if fault:
            raise ValueError(fault)
        return self


class Calibration(Part):
    """Text for methods that look at activations; ``builtin`` ships with the package, else a path or hub id.

    experts: which tokens a routed expert sees, those that its router sends it or all of them.
    """

    dataset: str = "builtin"
    samples: int = Field(128, ge=1)
    sequence_length: int = Field(2048, ge=8)
    seed: int = Field(0, ge=0, lt=2**31)
    experts: Literal["routed", "all"] = "routed"


class Perplexity(Part):
    """The held-out text: windows of ``sequence_length`` tokens side by side; windows: None = all of it.

    extend_to: windows that a gate which stays unsure may be measured over; None = all of the text.
    """

    dataset: str = "builtin"
    sequence_length: int = Field(2048, ge=8)
    windows: int | None = Field(None, ge=2)
    extend_to: int | None = Field(None, ge=2)


class Evaluation(Part):
    """What is measured on the original and on the quantized model, over the same tokens.

    tasks: lm-eval tasks by name, or paths of task files (.yaml). generations: texts that both models continue.
    """

    perplexity: Perplexity | None = Perplexity()
    divergence: bool = True
    tasks: list[str] = Field([])
    generations: int = Field(5, ge=0, le=50)


Share = Annotated[float, Field(ge=0, le=1)]


class Gates(Part):
    """Limits that the result must keep; None is no gate. That the checkpoint is sound is always one.

    max_baseline_increase: against the accepted results that ``qrun gate --baseline`` names.
    min_tokens_per_second_ratio: quantized / original, timed in the same run.
    min_task_accuracy, max_task_drop: a share for each lm-eval task; a drop is in accuracy, original - quantized.
    within_prediction: the measured loss lies inside the interval of ``expected.loss``.
    """

    max_perplexity_increase: Increase | None = None
    max_baseline_increase: Increase | None = None
    max_kl: float | None = Field(None, gt=0)
    min_top1_agreement: float | None = Field(None, gt=0, le=1)
    max_size: Size | None = None
    max_bits_per_weight: float | None = Field(None, gt=0)
    max_peak_memory: Size | None = None
    min_tokens_per_second_ratio: float | None = Field(None, gt=0)
    min_task_accuracy: dict[str, Share] = {}
    max_task_drop: dict[str, Share] = {}
    within_prediction: bool = False

    @property
    def count(self) -> int:
        """How many limits are set."""
        tasks = len(self.min_task_accuracy) + len(self.max_task_drop)
        own = self.model_dump(exclude_defaults=True, exclude={"min_task_accuracy", "max_task_drop"})
        return len(own) + tasks


class Output(Part):
    """Where the checkpoint and the report go; relative to the folder that qrun is started in."""

    path: str = "out"
    report: str | None = None


class ExpectedLoss(Part):
    """The predicted increase of perplexity, as a share of the original's, with its 80 % interval."""

    metric: Literal["perplexity"] = "perplexity"
    relative_increase: float
    low: float
    high: float
    support: int = 0


class Expected(Part):
    """The advisor's prediction, in bytes: as written, as loaded, and at the peak of serving."""

    file_bytes: int | None = None
    resident_bytes: int | None = None
    peak_memory: int | None = None
    loss: ExpectedLoss | None = None


class Because(Part):
    """One reason: the rule, its finding, where that was published, its numbers."""

    rule: str
    finding: str
    source: str
    evidence: str | None = None


class Recipe(Part):
    """The whole recipe, version 1."""

    version: Literal[1] = 1
    model: ModelRef
    target: Target = Target()
    quantization: Quantization
    calibration: Calibration = Calibration()
    evaluation: Evaluation = Evaluation()
    gates: Gates = Gates()
    output: Output = Output()
    expected: Expected | None = None
    launch: str | None = None
    because: list[Because] = Field([])
