"""Memory of a quantized model: exact for what is stored, a sourced estimate for the rest, each a line of its own.

Two sizes, never mixed: ``file_bytes`` is the checkpoint in its output format, ``weights_bytes`` what is resident
after loading (tied tensors once). Everything is in bytes, summed over the devices that share the model.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from quantrecipe.catalog.resolve import resolve_model
from quantrecipe.errors import QuantRecipeError
from quantrecipe.model import GROUPS, Matrix, ModelSpec
from quantrecipe.scheme_facts import SchemeFacts, scheme_facts
from quantrecipe.storage import KEEPS_TIED_TWICE, LAYOUTS, Stored, check_format

Verdict = Literal["fits", "edge", "does not fit"]

PLAIN_BYTES = 2  # what is not quantized stays in fp16 or bf16

# Activations of the widest moment of a prefill, in 16-bit numbers a token: three vectors of the MLP's width where
# it is gated, two where not, and three of the residual's. Fitted to Qwen's speed benchmark (memory_measured.csv).
GATED_WIDTHS, PLAIN_WIDTHS, RESIDUAL_WIDTHS = 3, 2, 3
LOGIT_BYTES = 6  # logits of the last token of each sequence, in 16 bits and in fp32
DEFAULT_PREFILL = 2048  # tokens an engine takes in one step; vLLM's documented default without a large GPU

# A CUDA context with its libraries takes 0.5 to 1 GB a device; the total counts the lower end, the uncertainty
# the rest. A CPU process with torch loaded is about 0.3 GB resident.
CONTEXT_BYTES = {"gpu": (500_000_000, 500_000_000), "cpu": (300_000_000, 100_000_000)}
ALLOCATOR_SHARE = 0.03  # what allocators add to weights and cache: covers 44 of the 48 rows of memory_measured.csv
ACTIVATION_DOUBT = 0.5
EDGE_SHARE = 0.25  # of the uncertainty that must be free: less is no recommendation, only luck


@dataclass(frozen=True, slots=True)
class Serving:
    """How the model will be served: what its memory depends on beside its weights.

    prefill_tokens: most tokens in one step, None = the whole context at once. device: gpu or cpu.
    kv_group: numbers of a quantized cache that share a 16-bit scale; None = those of a token and head.
    """

    context: int = 2048
    batch: int = 1
    kv_bits: int = 16
    gpus: int = 1
    prefill_tokens: int | None = DEFAULT_PREFILL
    device: str = "gpu"
    kv_group: int | None = None


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """Bytes of a model's tensors under one scheme and format: resident by group, and the whole file.

    codes, scales: of the ``quantized`` weights, in bytes.
    """

    groups: dict[str, int]
    file_bytes: int
    codes: int
    scales: int
    quantized: int

    @property
    def resident(self) -> int:
        """Bytes as loaded, on one device."""
        return sum(self.groups.values())

    @property
    def bits_per_weight(self) -> float:
        """Of the quantized weights: codes, scales, zero points, and a compensation beside them."""
        beside = self.groups.get("compensation", 0)
        return 8 * (self.codes + self.scales + beside) / self.quantized if self.quantized else 16.0


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What a quantized model needs, in bytes; ``total_bytes`` is the sum of the four lines before it.

    groups: resident weights by group; they sum to ``weights_bytes``. per_gpu_bytes: the total over the devices.
    """

    file_bytes: int
    weights_bytes: int
    kv_cache_bytes: int
    activations_bytes: int
    overhead_bytes: int
    total_bytes: int
    uncertainty_bytes: int
    groups: dict[str, int]
    bits_per_weight: float
    output_format: str
    gpus: int = 1

    @property
    def per_gpu_bytes(self) -> int:
        """What one of the devices holds."""
        return -(-self.total_bytes // self.gpus)

    def verdict(self, budget: int) -> Verdict:
        """fits; edge, where the budget lies within the uncertainty above the total; or does not fit."""
        if self.total_bytes > budget:
            return "does not fit"
        return "fits" if self.total_bytes + self.uncertainty_bytes <= budget else "edge"

    def spare(self, budget: int) -> int:
        """Bytes of the budget that are left over a quarter of the uncertainty: below zero it is no recommendation."""
        return budget - self.total_bytes - int(EDGE_SHARE * self.uncertainty_bytes)

    def weights_verdict(self, budget: int) -> Verdict:
        """The same for the weights alone, which are exact."""
        return "fits" if self.weights_bytes <= budget else "does not fit"

    def to_json(self) -> dict[str, Any]:
        """The fields of DESIGN.md."""
        return asdict(self)


def weight_bytes(
    model: ModelSpec, scheme: SchemeFacts, output_format: str, embedding_bits: int = 16, rank: int = 0
) -> WeightBytes:
    """Every tensor of the model, in the format's own layout.

    embedding_bits: 8 = the embedding of tokens in 8 bits, a scale a row. rank: of a low-rank compensation (LoRC)
    in 16 bits beside every quantized matrix, a file of its own.
    """
    groups: dict[str, int] = dict.fromkeys((*GROUPS, "compensation"), 0)
    codes = scales = 0
    for matrix in model.matrices:
        if embedding_bits < 16 and is_token_embedding(model, matrix):
            stored = LAYOUTS[output_format](scheme_facts(f"w{embedding_bits}a16"), matrix.rows, matrix.columns)
        else:
            stored = _matrix_bytes(matrix, scheme, output_format)
        if matrix.quantizable:
            groups["compensation"] += rank * (matrix.rows + matrix.columns) * matrix.count * PLAIN_BYTES
        groups[matrix.group] += stored.total * matrix.count + _bias_bytes(matrix)
        if matrix.quantizable:
            codes, scales = codes + stored.codes * matrix.count, scales + stored.scales * matrix.count
    groups["norms"] += model.norm_parameters * PLAIN_BYTES
    groups = {name: size for name, size in groups.items() if size}
    twice = model.tied and output_format in KEEPS_TIED_TWICE and scheme.bits < 16
    tied_head = model.head_parameters * PLAIN_BYTES if twice else 0
    return WeightBytes(groups, sum(groups.values()) + tied_head, codes, scales, model.quantizable_parameters)


def is_token_embedding(model: ModelSpec, matrix: Matrix) -> bool:
    """Whether a matrix holds a row a token (not positions, nor an untied head)."""
    return matrix.group == "embeddings" and matrix.rows == model.vocab


def _matrix_bytes(matrix: Matrix, scheme: SchemeFacts, output_format: str) -> Stored:
    if matrix.quantizable and scheme.bits < 16:
        return LAYOUTS[output_format](scheme, matrix.rows, matrix.columns)
    return Stored(matrix.rows * matrix.columns * PLAIN_BYTES, 0, 0)


def _bias_bytes(matrix: Matrix) -> int:
    return matrix.rows * matrix.count * PLAIN_BYTES if matrix.bias else 0


def kv_cache_bytes(model: ModelSpec, serving: Serving) -> int:
    """Keys and values of batch sequences of ``context`` tokens, over all devices.

    A cache of fewer bits holds a 16-bit scale a token and head beside (vLLM's int8; fp8 needs none). A device
    holds whole heads: where there are fewer heads than devices, they are copied.
    """
    copies = max(1, serving.gpus // model.kv.shard_heads)
    scales = -(-model.kv.width // serving.kv_group) if serving.kv_group else model.kv.heads
    number_bits = model.kv.width * serving.kv_bits + (16 * scales if serving.kv_bits < 16 else 0)
    return model.kv.kept_tokens(serving.context) * serving.batch * copies * number_bits // 8


def activations_bytes(model: ModelSpec, serving: Serving) -> int:
    """The widest moment of one step, over all devices: the MLP's vectors are split, the residual's copied."""
    tokens = serving.context * serving.batch
    if serving.prefill_tokens:
        tokens = min(tokens, serving.prefill_tokens)
    width = model.intermediate * max(1, model.active_experts)
    widths = (GATED_WIDTHS if model.gated else PLAIN_WIDTHS) * width
    step = tokens * PLAIN_BYTES * (widths + RESIDUAL_WIDTHS * model.hidden * serving.gpus)
    return step + LOGIT_BYTES * serving.batch * model.vocab


def _replicated(model: ModelSpec, weights: WeightBytes, gpus: int) -> dict[str, int]:
    """Groups over all devices: norms and routers are copied to each, matrices split."""
    copied = ("norms", "router", "compensation")
    return {name: size * (gpus if name in copied else 1) for name, size in weights.groups.items()}


def estimate(model: ModelSpec, scheme: SchemeFacts, output_format: str, serving: Serving) -> MemoryEstimate:
    """The estimate for a model and scheme that are already resolved; ``output_format`` must hold the scheme."""
    return combine(model, weight_bytes(model, scheme, output_format), output_format, serving)


def combine(model: ModelSpec, stored: WeightBytes, output_format: str, serving: Serving) -> MemoryEstimate:
    """Adds what serving needs to the bytes of the weights."""
    groups = _replicated(model, stored, serving.gpus)
    weights, cache = sum(groups.values()), kv_cache_bytes(model, serving)
    activations = activations_bytes(model, serving)
    least, doubt = CONTEXT_BYTES[serving.device]
    overhead = least * serving.gpus
    uncertainty = int(ALLOCATOR_SHARE * (weights + cache) + ACTIVATION_DOUBT * activations) + doubt * serving.gpus
    return MemoryEstimate(
        stored.file_bytes, weights, cache, activations, overhead, weights + cache + activations + overhead,
        uncertainty, groups, stored.bits_per_weight, output_format, serving.gpus,
    )  # fmt: skip


def estimate_memory(  # noqa: PLR0913 - the question has that many parts
    model: str | ModelSpec,
    scheme: str | SchemeFacts,
    *,
    context: int = 2048,
    batch: int = 1,
    kv_bits: int = 16,
    output_format: str = "auto",
    gpus: int = 1,
    prefill_tokens: int | None = DEFAULT_PREFILL,
    device: str = "gpu",
) -> MemoryEstimate:
    """What ``model`` needs under ``scheme`` (a name such as ``w4a16-g128``) at that context and batch, in bytes.

    kv_bits: 4, 8 or 16. output_format: auto, compressed-tensors, gptq, awq, bitsandbytes, gguf. gpus: devices
    that share it (tensor parallelism). Raises QuantRecipeError for what is unknown or not positive.
    """
    spec = resolve_model(model) if isinstance(model, str) else model
    facts = scheme_facts(scheme) if isinstance(scheme, str) else scheme
    for name, value in (("context", context), ("batch", batch), ("gpus", gpus)):
        if value < 1:
            raise QuantRecipeError(f"{name} must be at least 1", value=value)
    if kv_bits not in (4, 8, 16):
        raise QuantRecipeError("kv bits not known", value=kv_bits, limit="4, 8 or 16")
    if device not in CONTEXT_BYTES:
        raise QuantRecipeError("device not known", value=device, limit="gpu or cpu")
    serving = Serving(context, batch, kv_bits, gpus, prefill_tokens, device)
    return estimate(spec, facts, check_format(facts, output_format), serving)
