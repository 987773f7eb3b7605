"""The shape of results.json, published as docs/results.schema.json; what is read back is checked against it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from quantrecipe.plugins.contract import LayerRecord
from quantrecipe.recipe import Because, Expected


class Row(BaseModel):
    """Base of every part: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class IntervalRow(Row):
    """An estimate, its interval (null: too little data), and the blocks or questions that it rests on."""

    value: float
    low: float | None
    high: float | None
    blocks: int
    confidence: float


class VerdictRow(Row):
    """The outcome in a word and in a sentence."""

    status: Literal["pass", "fail", "unsure", "done"]
    sentence: str


class ModelRow(Row):
    """The original."""

    id: str
    revision: str | None
    architecture: str
    blocks: int
    parameters: int
    dtype: str


class OutputRow(Row):
    """The checkpoint; backend null where it is not known who made it."""

    name: str
    format: str
    backend: str | None
    backend_version: str | None


class SizeRow(Row):
    """Bytes on disk, and bits of a quantized weight with its scales and zero points."""

    original_file_bytes: int
    file_bytes: int
    quantized_weights: int
    quantized_bytes: int
    bits_per_weight: float | None
    original_bits_per_weight: int


class ConventionRow(Row):
    """How perplexity was measured."""

    dataset: str
    window: int
    windows: int
    windows_available: int
    counted_tokens: int
    bytes: int | None
    bos: str | None
    stride: str
    counted: str
    dtype: str
    device: str


class MeasuresRow(Row):
    """Perplexities and what was lost; ``increase`` is a share of the original's."""

    convention: ConventionRow
    perplexity: float
    quantized_perplexity: float
    increase: IntervalRow
    kl: IntervalRow | None
    agreement: IntervalRow | None
    bits_per_byte: float | None
    quantized_bits_per_byte: float | None


class GateRow(Row):
    """One gate; see runner/judge.py."""

    name: str
    outcome: Literal["pass", "fail", "unsure"]
    limit: float | None
    low_limit: float | None
    value: float | None
    low: float | None
    high: float | None
    unit: str
    why: str
    confidence: float | None
    further_windows: int | None
    faults: list[str]


class LookRow(Row):
    """One look: windows seen so far, one-sided error that it could spend, gates that more windows might settle."""

    windows: int
    alpha: float
    unsure: list[str]


class WindowsRow(Row):
    """Of each window in the order of the text: its place, its tokens' digest, mean losses in nats a token."""

    index: list[int]
    tokens_sha256: list[str]
    original: list[float]
    quantized: list[float]
    kl: list[float] | None
    agreement: list[float] | None


class TaskRow(Row):
    """Accuracies on the same questions, and what was lost."""

    metric: str
    questions: int
    original: IntervalRow
    quantized: IntervalRow
    drop: IntervalRow


class SpeedRow(Row):
    """Median tokens a second, and the logarithm of each pair's ratio."""

    log_ratios: list[float]
    original: float
    quantized: float
    prompt_tokens: int
    new_tokens: int


class GenerationRow(Row):
    """One opening that both models continued; ``same``: tokens before the two part."""

    prompt: str
    original: str
    quantized: str
    same: int
    tokens: int


class ProfileLine(Row):
    """Perplexities over the tokens of one bucket."""

    label: str
    tokens: int
    perplexity: float
    quantized_perplexity: float


class ProfileRow(Row):
    """By position in the window, and by how often the token occurs in the measured text."""

    position: list[ProfileLine]
    frequency: list[ProfileLine]


class KernelRow(Row):
    """What multiplies that many rows of inputs, and why."""

    rows: int
    kernel: str
    why: str


class RuntimeRow(Row):
    """How the quantized side was computed for what, and why; layers: how many of them so (null: all).

    scheme: how their weights are kept (null: dequantized, or by a loader that is not ours). shape: [N, K].
    """

    what: str
    path: str
    why: str
    layers: int | None
    scheme: str | None = None
    shape: tuple[int, int] | None = None
    kernels: list[KernelRow] = Field(default_factory=list)


class SuspectRow(Row):
    """A layer that stands out, and how."""

    name: str
    why: str


class AdviceRow(Row):
    """What to try next, and the rule that says so."""

    action: str
    why: str
    rule: str | None
    source: str | None


class CalibrationRow(Row):
    """The tokens that a method looked at."""

    dataset: str
    samples: int
    sequence_length: int
    tokens: int
    text_tokens: int
    seed: int


class StageRow(Row):
    """What a stage took; ``exact``: whether the peak belongs to it alone."""

    name: str
    seconds: float
    peak_memory: int | None
    exact: bool
    anonymous_memory: int | None
    gpu_peak_memory: int | None


class BaselineRow(Row):
    """What was compared with: a label, its loss, and the windows that both share."""

    name: str
    quantized_perplexity: float
    windows: int


class RecipeFileRow(Row):
    """The recipe's file as it was named, the line of its gates, and that of each gate."""

    path: str
    line: int
    gates: dict[str, int]


class Results(Row):
    """A whole results.json. Bytes, seconds, nats; shares are fractions. created: UTC, ISO 8601."""

    schema_: Literal[1] = Field(alias="schema")
    quantrecipe: str
    created: str = Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
    verdict: VerdictRow
    model: ModelRow
    output: OutputRow
    size: SizeRow
    measures: MeasuresRow | None
    gates: list[GateRow]
    looks: list[LookRow]
    windows: WindowsRow | None
    baseline: BaselineRow | None
    tasks: dict[str, TaskRow]
    speed: SpeedRow | None
    generations: list[GenerationRow]
    profile: ProfileRow | None
    runtime: list[RuntimeRow] = Field(default_factory=list)
    expected: Expected | None
    because: list[Because]
    layers: list[LayerRecord]
    suspects: list[SuspectRow]
    next: list[AdviceRow]
    calibration: CalibrationRow | None
    verified: dict[str, Any]
    stages: list[StageRow]
    recipe: str
    recipe_file: RecipeFileRow | None
    environment: dict[str, Any]
    command: str | None
    launch: str | None
    notes: list[str]


def results_schema() -> dict[str, Any]:
    """The JSON schema."""
    return Results.model_json_schema(by_alias=True)
